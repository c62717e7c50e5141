/* SPDX-License-Identifier: Apache-2.0
 * frame_goldens.h - what frames look like, byte by byte: the examples of docs/protocol.md, and the proof that the codec
 * keeps producing and reading exactly these bytes. Worked out from the document, not by running the encoder; changing
 * a line that was released breaks every peer.
 *
 *   X(frame, "what it says", "hex", members of lim__f_frame that are not zero...)
 *
 * `|` and blanks in the hex separate fields and mean nothing. */
#ifndef LIM__FRAME_GOLDENS_H
#define LIM__FRAME_GOLDENS_H

/* The user of the map brings B(literal): bytes, also packed headers; NAMES(n, literal): encoded names. */
#define LIM__GOLDEN_MAP(X)                                                                                             \
    X(connect, "a version 1.0 client, no token",                                                                       \
      "01 00 00000000 0000000c | 0001 | 0000 | 0001 | 0000 | 00000000",                                                \
      .min_major = 1, .max_major = 1)                                                                                  \
    X(connect, "a version 1.0 client with the token `secret`",                                                         \
      "01 00 00000000 00000012 | 0001 | 0000 | 0001 | 0000 | 00000006 736563726574",                                   \
      .min_major = 1, .max_major = 1, .token = B("secret"))                                                            \
    X(connect, "a version 2 client: 1.0 to 2.0, no token",                                                             \
      "01 00 00000000 0000000c | 0001 | 0000 | 0002 | 0000 | 00000000",                                                \
      .min_major = 1, .max_major = 2)                                                                                  \
    X(connect_ack, "the server chose 1.0 (version 1.0 servers)",                                                       \
      "02 00 00000000 00000008 | 0001 | 0000 | 00000000",                                                              \
      .major = 1)                                                                                                      \
    X(connect_ack, "the server chose 2.0",                                                                             \
      "02 00 00000000 00000008 | 0002 | 0000 | 00000000",                                                              \
      .major = 2)                                                                                                      \
    X(connect_error, "wrong token",                                                                                    \
      "03 00 00000000 0000002f | 0006 | 01 00000028 "                                                                  \
      "636f6e6e656374696f6e2061757468656e7469636174696f6e20746f6b656e2072656a6563746564",                              \
      .reason = 6, .message = B("connection authentication token rejected"))                                           \
    X(disconnect, "goodbye",                                                                                           \
      "04 00 00000000 00000000",                                                                                       \
      .flags = 0)                                                                                                      \
    X(ping, "are you there?",                                                                                          \
      "13 00 00000000 00000000",                                                                                       \
      .flags = 0)                                                                                                      \
    X(pong, "yes",                                                                                                     \
      "14 00 00000000 00000000",                                                                                       \
      .flags = 0)                                                                                                      \
    X(hello, "a new session of the client `w1`, which is at `east`",                                                   \
      "40 00 00000000 00000020 | 00000000 | 00001770 | 00000000000000000000000000000000 | 02 7731 | 04 65617374",      \
      .liveness_ms = 6000, .client = B("w1"), .node = B("east")) \
    X(welcome, "the session has an id; frames up to 1114112 bytes; nothing is durable",                                \
      "41 00 00000000 0000002a | 00000000 | 00110000 | 000007d0 | a0a1a2a3a4a5a6a7a8a9aaabacadaeaf | 02 "              \
      "7331 | 05 302e312e30 | 04 6e6f6e65",                                                                            \
      .frame_max = 1114112, .ping_ms = 2000,                                                                           \
      .session = { { 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,                                                   \
                     0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf } }, .server = B("s1"), .version = B("0.1.0"),     \
      .durability_class = B("none"))                                                                                   \
    X(publish, "`hi` to `orders`",                                                                                     \
      "42 00 00000000 0000000d | 00000007 | 06 6f7264657273 | 6869",                                                   \
      .corr = 7, .channel = B("orders"), .payload = B("hi"))                                                           \
    X(publish, "with the header k: v, mandatory",                                                                      \
      "42 05 00000000 00000014 | 00000008 | 06 6f7264657273 | 0001 01 6b 0001 76 | 6869",                              \
      .corr = 8, .channel = B("orders"), .headers = B("\000\001\001k\000\001v"), .payload = B("hi"), .flags = 0x04)    \
    X(published, "publishes 7, 8 and 9 were accepted, each matched 2 subscriptions and was delivered to both",         \
      "43 00 00000000 00000028 | 00000007 | 00000003 | 01 | 00 | 00000002 | 00000002 | 00000000 | "                    \
      "00000000 | 00000000 | 00000000 | 00000000 | 0000",                                                              \
      .first_corr = 7, .count = 3, .verdict = 1, .matched = 2, .delivered = 2)                                         \
    X(published, "publish 10 was refused: a subscription is full at 64; try again in 50 ms",                           \
      "43 00 00000000 0000002c | 0000000a | 00000001 | 03 | 02 | 00000001 | 00000000 | 00000000 | "                    \
      "00000000 | 00000040 | 00000040 | 00000032 | 0004 66756c6c",                                                     \
      .first_corr = 10, .count = 1, .verdict = 3, .why = 2, .matched = 1, .limit = 64, .current = 64,                  \
      .retry_after_ms = 50, .detail = B("full"))                                                                       \
    X(subscribe, "stream 1 reads `orders.*`: window 64, backlog 256, holding the publisher back",                      \
      "44 00 00000001 00000012 | 00000040 | 00000100 | 01 | 08 6f72646572732e2a",                                      \
      .stream = 1, .window = 64, .backlog = 256, .policy = 1, .pattern = B("orders.*"))                                \
    X(subscribed, "",                                                                                                  \
      "45 00 00000001 00000008 | 0000000000000005",                                                                    \
      .stream = 1, .subscription = 5)                                                                                  \
    X(deliver, "the first message of stream 1",                                                                        \
      "46 00 00000001 0000000a | 0000000000000001 | 6869",                                                             \
      .stream = 1, .seq = 1, .payload = B("hi"))                                                                       \
    X(deliver, "the second, with a header and the name of its channel",                                                \
      "46 03 00000001 0000001b | 0000000000000002 | 0001 01 6b 0001 76 | 09 6f72646572732e6575 | 6869",                \
      .stream = 1, .seq = 2, .headers = B("\000\001\001k\000\001v"), .channel = B("orders.eu"), .payload = B("hi"))    \
    X(ack, "everything up to 2 is done",                                                                               \
      "47 00 00000001 00000008 | 0000000000000002",                                                                    \
      .stream = 1, .upto_seq = 2)                                                                                      \
    X(unsubscribe, "",                                                                                                 \
      "48 00 00000001 00000000",                                                                                       \
      .stream = 1)                                                                                                     \
    X(ended, "after an UNSUBSCRIBE: code 0",                                                                           \
      "49 00 00000001 00000014 | 0000 | 0000000000000002 | 0000000000000000 | 0000",                                   \
      .stream = 1, .delivered = 2)                                                                                     \
    X(delivers, "7 and 8 of a log in one frame, the first with a header",                                              \
      "76 00 00000001 00000025 | 0000000000000007 | 00000002 | 0000000a 0008 0001 01 61 0002 3130 6869 "               \
      "| 00000003 0000 686579",                                                                                        \
      .stream = 1, .first = 7, .count = 2,                                                                             \
      .messages = B("\0\0\0\x0a\0\x08\0\1\1a\0\x02" "10hi\0\0\0\3\0\0hey"))                                              \
    X(dropped, "drop_oldest began to drop",                                                                            \
      "4a 00 00000001 00000009 | 0000000000000001 | 02",                                                               \
      .stream = 1, .dropped_total = 1, .policy = 2)                                                                    \
    X(stored, "publishes 7 and 8 are numbers 42 and 43 of their channel, on disk; 2 subscriptions match them",         \
      "4b 00 00000000 00000036 | 00000007 | 00000002 | 01 | 00 | 03 | 00 | 000000000000002a "                          \
      "| 0000000000000001 | 0000000000000000 | 00000002 | 00000000 | 00000000 | 00000000 | 0000",                      \
      .corr = 7, .count = 2, .verdict = 1, .class = 3, .seq = 42, .at_us = 1, .matched = 2)                            \
    X(confirm, "message 42 of stream 1 is done",                                                                       \
      "4c 00 00000001 00000011 | 00000001 | 01 | 00000000 | 000000000000002a",                                         \
      .stream = 1, .corr = 1, .how = 1, .seq = 42)                                                                     \
    X(confirmed, "and that is stored",                                                                                 \
      "4d 00 00000001 00000008 | 00000001 | 0000 | 0000",                                                              \
      .stream = 1, .corr = 1)                                                                                          \
    X(step, "one step that consists of the CONFIRM above",                                                             \
      "4e 00 00000000 0000001f | 00000001 | 4c 00 00000001 00000011 00000001 01 00000000 000000000000002a",            \
      .corr = 1, .frames = B("\x4c\0\0\0\0\1\0\0\0\x11\0\0\0\1\1\0\0\0\0\0\0\0\0\0\0\0\x2a"))                          \
    X(stepped, "it is stored",                                                                                         \
      "4f 00 00000000 00000008 | 00000001 | 0000 | 0000",                                                              \
      .corr = 1)                                                                                                       \
    X(ask, "`q` of type `quote` to the group `pricing`, 5 s, fail if its participant crashes",                         \
      "50 00 00000000 00000024 | 0000000000000001 | 00001388 | 01 | 0000000000000000 | 07 70726963696e67 "             \
      "| 05 71756f7465 | 71",                                                                                          \
      .corr = 1, .timeout_ms = 5000, .on_crash = 1, .group = B("pricing"), .type = B("quote"), .payload = B("q"))      \
    X(ask, "to the participant 9 itself, without a deadline, waiting for it to appear",                                \
      "50 02 00000000 0000001d | 0000000000000002 | ffffffff | 02 | 0000000000000009 | 00 | 05 71756f7465 "            \
      "| 71",                                                                                                          \
      .corr = 2, .timeout_ms = 0xffffffff, .on_crash = 2, .participant = 9, .type = B("quote"), .payload = B("q"),     \
      .flags = 0x02)                                                                                                   \
    X(ask, "for an answer in parts, at most 8 of them under way",                                                      \
      "50 08 00000000 0000002f | 0000000000000003 | ffffffff | 01 | 0000000000000000 | 05 6d6f64656c | 06 "            \
      "746f6b656e73 | 0001 06 77696e646f77 0001 38 | 71",                                                              \
      .corr = 3, .timeout_ms = 0xffffffff, .on_crash = 1, .group = B("model"), .type = B("tokens"),                    \
      .options = B("\000\001\006window\000\0018"), .payload = B("q"))                                                  \
    X(ask, "of everybody in `sensors`; two replies are enough",                                                        \
      "50 08 00000000 0000002b | 0000000000000004 | 000003e8 | 01 | 0000000000000000 | 07 73656e736f7273 | "           \
      "00 | 0001 06 71756f72756d 0001 32 | 71",                                                                        \
      .corr = 4, .timeout_ms = 1000, .on_crash = 1, .group = B("sensors"),                                             \
      .options = B("\000\001\006quorum\000\0012"), .payload = B("q"))                                                  \
    X(outcome, "the reply `42` from `w1`, whom `least_loaded` chose",                                                  \
      "51 00 00000000 00000056 | 0000000000000001 | 01 | 02 | 01 | 00 | 00000000 | 000000000000004d | "                \
      "0000000000000000 | 0000000000000000 | 0000000000000000 | 00000000 | 00000000 | 00000000 | 0001 | "              \
      "0000 | 02 7731 | 0c 6c656173745f6c6f61646564 | 0000 | 0000 | 3432",                                             \
      .corr = 1, .how = 1, .handed_over = 2, .verdict = 1, .conversation = 77, .attempts = 1,                          \
      .participant = B("w1"), .router = B("least_loaded"), .payload = B("42"))                                         \
    X(outcome, "crashed: its connection was lost (reason 10) 1.5 ms ago, after it had the request",                    \
      "51 00 00000000 00000076 | 0000000000000002 | 04 | 02 | 01 | 00 | 0000000a | 000000000000004e | "                \
      "0000000000000000 | 00000000000005dc | 0000000000000000 | 00000000 | 00000000 | 00000000 | 0002 | "              \
      "0001 | 02 7732 | 0c 6c656173745f6c6f61646564 | 0001 02 7731 00000000000005dc 0000000000000014 | 000f " \
      "636f6e6e656374696f6e206c6f7374",                                                                                \
      .corr = 2, .how = 4, .handed_over = 2, .verdict = 1, .reason = 10, .conversation = 78, .crashed_us = 1500,       \
      .attempts = 2, .losses = 1, .participant = B("w2"), .router = B("least_loaded"),                                 \
      .excluded = NAMES(1, "\002w1\0\0\0\0\0\0\x05\xdc\0\0\0\0\0\0\0\x14"), .detail = B("connection lost")) \
    X(outcome, "crashed, and task 92 undoes what was done",                                                            \
      "51 00 00000000 00000054 | 0000000000000003 | 04 | 02 | 01 | 00 | 0000000a | 000000000000004f | "                \
      "000000000000005c | 0000000000000014 | 0000000000000000 | 00000000 | 00000000 | 00000000 | 0001 | "              \
      "0001 | 02 7732 | 0c 6c656173745f6c6f61646564 | 0000 | 0000",                                                    \
      .corr = 3, .how = 4, .handed_over = 2, .verdict = 1, .reason = 10, .conversation = 79, .compensation = 92,       \
      .crashed_us = 20, .attempts = 1, .losses = 1, .participant = B("w2"), .router = B("least_loaded"))               \
    X(cancel, "",                                                                                                      \
      "52 00 00000000 00000008 | 0000000000000001",                                                                    \
      .corr = 1)                                                                                                       \
    X(report, "two of its places are taken by work from elsewhere",                                                    \
      "53 00 00000003 00000004 | 00000002",                                                                            \
      .stream = 3, .used = 2)                                                                                          \
    X(serve, "stream 3: serve the types `quote` and `price` in the group `pricing`, 4 at a time",                      \
      "54 00 00000003 00000025 | 01 | 00000004 | 00 | 07 70726963696e67 | 02 7731 | 0002 05 71756f7465 05 "            \
      "7072696365 | 0001 03 677075",                                                                                   \
      .stream = 3, .kind = 1, .capacity = 4, .group = B("pricing"), .identity = B("w1"),                               \
      .types = NAMES(2, "\005quote\005price"), .tags = NAMES(1, "\003gpu"))                                            \
    X(served, "",                                                                                                      \
      "55 00 00000003 0000000b | 0000000000000009 | 02 7731",                                                          \
      .stream = 3, .participant = 9, .identity = B("w1"))                                                              \
    X(leave, "",                                                                                                       \
      "56 00 00000003 00000000",                                                                                       \
      .stream = 3)                                                                                                     \
    X(left, "after a LEAVE: code 0",                                                                                   \
      "57 00 00000003 00000004 | 0000 | 0000",                                                                         \
      .stream = 3)                                                                                                     \
    X(request, "the first attempt, 4.998 s left",                                                                      \
      "58 00 00000003 0000002e | 000000000000004d | 00000000000001f5 | 00001386 | 0001 | 0000 | 0000 | "               \
      "00000000 | 00 | 0000000000000000 | 05 71756f7465 | 71",                                                         \
      .stream = 3, .conversation = 77, .lease = 501, .remaining_ms = 4998, .attempt = 1, .type = B("quote"),           \
      .payload = B("q"))                                                                                               \
    X(request, "a task: acknowledge with TAKEN; the second attempt after one loss",                                    \
      "58 03 00000003 00000037 | 000000000000005a | 00000000000001f6 | ffffffff | 0002 | 0001 | 0000 | "               \
      "00000000 | 00 | 0000000000000000 | 06 636861726765 | 0001 01 6b 0001 76 | 7b7d",                                \
      .stream = 3, .conversation = 90, .lease = 502, .remaining_ms = 0xffffffff, .attempt = 2, .losses = 1,            \
      .type = B("charge"), .headers = B("\000\001\001k\000\001v"), .payload = B("{}"), .flags = 0x02)                  \
    X(request, "its asker takes parts, 8 now; asked by who was asked itself (one hop)",                                \
      "58 00 00000003 0000002f | 0000000000000050 | 00000000000001f7 | ffffffff | 0001 | 0000 | 0001 | "               \
      "00000008 | 00 | 0000000000000000 | 06 746f6b656e73 | 71",                                                       \
      .stream = 3, .conversation = 80, .lease = 503, .remaining_ms = 0xffffffff, .attempt = 1, .hops = 1,              \
      .credit = 8, .type = B("tokens"), .payload = B("q"))                                                             \
    X(request, "an event: the participant 10 has joined the conversation 91 (no lease, no reply)",                     \
      "58 04 00000003 00000028 | 000000000000005b | 0000000000000000 | ffffffff | 0001 | 0000 | 0000 | "               \
      "00000000 | 01 | 000000000000000a | 00",                                                                         \
      .stream = 3, .conversation = 91, .remaining_ms = 0xffffffff, .attempt = 1, .event = 1, .from = 10,               \
      .flags = 0x04)                                                                                                   \
    X(taken, "",                                                                                                       \
      "59 00 00000003 00000010 | 000000000000005a | 00000000000001f6",                                                 \
      .stream = 3, .conversation = 90, .lease = 502)                                                                   \
    X(reply, "",                                                                                                       \
      "5a 00 00000003 00000015 | 000000000000004d | 00000000000001f5 | 01 | 0000 | 3432",                              \
      .stream = 3, .conversation = 77, .lease = 501, .how = 1, .payload = B("42"))                                     \
    X(reply, "failed",                                                                                                 \
      "5a 00 00000003 00000020 | 000000000000005a | 00000000000001f6 | 02 | 000d "                                     \
      "63617264206465636c696e6564",                                                                                    \
      .stream = 3, .conversation = 90, .lease = 502, .how = 2, .detail = B("card declined"))                           \
    X(progress, "half done; the worker is not stuck",                                                                  \
      "5b 00 00000003 00000016 | 000000000000005a | 00000000000001f6 | 0004 68616c66",                                 \
      .stream = 3, .conversation = 90, .lease = 502, .note = B("half"))                                                \
    X(revoked, "it was cancelled: drop it",                                                                            \
      "5c 00 00000003 00000011 | 000000000000005a | 00000000000001f6 | 01",                                            \
      .stream = 3, .conversation = 90, .lease = 502, .why = 1)                                                         \
    X(holding, "after reconnecting: still at it",                                                                      \
      "5d 00 00000003 00000010 | 000000000000005a | 00000000000001f6",                                                 \
      .stream = 3, .conversation = 90, .lease = 502)                                                                   \
    X(settled, "the result counts",                                                                                    \
      "5e 00 00000003 00000013 | 000000000000005a | 00000000000001f6 | 01 | 0000",                                     \
      .stream = 3, .conversation = 90, .lease = 502, .accepted = 1)                                                    \
    X(say, "to the opener of a conversation that it was sent something in",                                            \
      "5f 00 00000003 0000001a | 000000000000005b | 0000000000000000 | 62792074686520776179",                          \
      .stream = 3, .conversation = 91, .payload = B("by the way"))                                                     \
    X(say, "to all the others, and the opener",                                                                        \
      "5f 00 00000003 00000015 | 000000000000005b | ffffffffffffffff | 6865617221",                                    \
      .stream = 3, .conversation = 91, .to = UINT64_MAX, .payload = B("hear!"))                                        \
    X(dispatch, "with OUTCOME when it has ended",                                                                      \
      "60 02 00000000 00000020 | 0000000000000003 | 0000ea60 | 0000 | 08 7061796d656e7473 | 06 "                       \
      "636861726765 | 7b7d",                                                                                           \
      .corr = 3, .timeout_ms = 60000, .queue = B("payments"), .type = B("charge"), .payload = B("{}"), .flags = 0x02)  \
    X(dispatch, "first in line (priority 9), once per idempotency key, whatever is sent twice",                        \
      "60 0a 00000000 00000044 | 0000000000000004 | 0000ea60 | 0000 | 08 7061796d656e7473 | 06 "                       \
      "636861726765 | 0002 08 7072696f72697479 0001 39 0f 6964656d706f74656e63795f6b6579 0004 6f2d3137 | "             \
      "7b7d",                                                                                                          \
      .corr = 4, .timeout_ms = 60000, .queue = B("payments"), .type = B("charge"),                                     \
      .options = B("\000\002\010priority\000\0019\017idempotency_key\000\004o-17"), .payload = B("{}"),                \
      .flags = 0x02)                                                                                                   \
    X(dispatched, "kept, but the queue is past its high water mark: slow down",                                        \
      "61 00 00000000 00000020 | 0000000000000003 | 02 | 06 | 000000000000005a | 000003e8 | 00000321 | "               \
      "000000c8 | 0000",                                                                                               \
      .corr = 3, .verdict = 2, .why = 6, .task = 90, .limit = 1000, .current = 801, .retry_after_ms = 200)             \
    X(await, "",                                                                                                       \
      "62 00 00000000 00000010 | 0000000000000004 | 000000000000005a",                                                 \
      .corr = 4, .task = 90)                                                                                           \
    X(part, "one part of an answer",                                                                                   \
      "63 00 00000003 00000013 | 0000000000000050 | 00000000000001f7 | 746f6b",                                        \
      .stream = 3, .conversation = 80, .lease = 503, .payload = B("tok"))                                              \
    X(partial, "the first part of the answer to ask 3",                                                                \
      "64 00 00000000 0000001d | 0000000000000003 | 0000000000000050 | 00000001 | 01 | 02 7731 | 0000 | "              \
      "746f6b",                                                                                                        \
      .corr = 3, .conversation = 80, .seq = 1, .how = 1, .participant = B("w1"), .payload = B("tok"))                  \
    X(partial, "one of many could not: what `s2` answered to ask 4",                                                   \
      "64 00 00000000 00000023 | 0000000000000004 | 0000000000000051 | 00000002 | 02 | 02 7332 | 0009 "                \
      "6e6f207369676e616c",                                                                                            \
      .corr = 4, .conversation = 81, .seq = 2, .how = 2, .participant = B("s2"), .detail = B("no signal"))             \
    X(grant, "four parts were handled: four more may come",                                                            \
      "65 00 00000000 0000000c | 0000000000000003 | 00000004",                                                         \
      .corr = 3, .parts = 4)                                                                                           \
    X(credit, "four more parts may be sent",                                                                           \
      "66 00 00000003 00000014 | 0000000000000050 | 00000000000001f7 | 00000004",                                      \
      .stream = 3, .conversation = 80, .lease = 503, .parts = 4)                                                       \
    X(signal, "`pause` to whoever works on task 90",                                                                   \
      "67 00 00000000 00000018 | 0000000000000006 | 000000000000005a | 05 7061757365 | 3168",                          \
      .corr = 6, .conversation = 90, .name = B("pause"), .payload = B("1h"))                                           \
    X(open, "stream 5 is a conversation with the group `chat`",                                                        \
      "68 00 00000005 00000012 | ffffffff | 01 | 0000000000000000 | 04 63686174",                                      \
      .stream = 5, .timeout_ms = 0xffffffff, .on_crash = 1, .group = B("chat"))                                        \
    X(open, "stream 6: a named one that others may join and find by its attributes",                                   \
      "68 08 00000006 0000002b | 0000ea60 | 01 | 0000000000000000 | 00 | 0002 04 6e616d65 0006 "                       \
      "726f6f6d2d31 04 61747472 0007 666c6f6f723d33",                                                                  \
      .stream = 6, .timeout_ms = 60000, .on_crash = 1,                                                                 \
      .options = B("\000\002\004name\000\006room-1\004attr\000\007floor=3"))                                           \
    X(opened, "",                                                                                                      \
      "69 00 00000005 0000000c | 000000000000005b | 0000 | 0000",                                                      \
      .stream = 5, .conversation = 91)                                                                                 \
    X(send, "to all its participants",                                                                                 \
      "6a 00 00000005 0000000e | 00000001 | 0000000000000000 | 6869",                                                  \
      .stream = 5, .corr = 1, .payload = B("hi"))                                                                      \
    X(sent, "its only participant got it",                                                                             \
      "6b 00 00000005 00000026 | 00000001 | 00000001 | 01 | 00 | 00 | 00 | 00000001 | 00000001 | 00000000 "            \
      "| 00000000 | 00000000 | 00000000 | 0000",                                                                       \
      .stream = 5, .first_corr = 1, .count = 1, .verdict = 1, .matched = 1, .delivered = 1)                            \
    X(sent, "refused: a conversation that has ended (4) cannot become active (2) again; why 11: closing",              \
      "6b 00 00000005 00000041 | 00000002 | 00000001 | 03 | 0b | 04 | 02 | 00000000 | 00000000 | 00000000 "            \
      "| 00000000 | 00000000 | 00000000 | 001b 636c6f7365642063616e6e6f74206265636f6d6520616374697665",                \
      .stream = 5, .first_corr = 2, .count = 1, .verdict = 3, .why = 11, .phase = 4, .wanted = 2,                      \
      .detail = B("closed cannot become active"))                                                                      \
    X(sent, "refused: nobody receives, and 1024 messages wait already; try again in 100 ms",                           \
      "6b 00 00000005 00000026 | 00000003 | 00000001 | 03 | 18 | 00 | 00 | 00000001 | 00000000 | 00000000 "            \
      "| 00000400 | 00000400 | 00000064 | 0000",                                                                       \
      .stream = 5, .first_corr = 3, .count = 1, .verdict = 3, .why = 24, .matched = 1, .limit = 1024,                  \
      .current = 1024, .retry_after_ms = 100)                                                                          \
    X(message, "from the participant 9",                                                                               \
      "6c 00 00000005 00000017 | 0000000000000009 | 0000000000000001 | 00 | 00 | 68656c6c6f",                          \
      .stream = 5, .from = 9, .seq = 1, .payload = B("hello"))                                                         \
    X(message, "an event: the participant 9 crashed; its connection was lost",                                         \
      "6c 00 00000005 00000021 | 0000000000000009 | 0000000000000002 | 03 | 0f "                                       \
      "636f6e6e656374696f6e5f6c6f7374",                                                                                \
      .stream = 5, .from = 9, .seq = 2, .event = 3, .note = B("connection_lost"))                                      \
    X(close, "",                                                                                                       \
      "6d 00 00000005 00000000",                                                                                       \
      .stream = 5)                                                                                                     \
    X(closed, "",                                                                                                      \
      "6e 00 00000005 00000007 | 04 | 00000001 | 0000",                                                                \
      .stream = 5, .phase = 4, .reason = 1)                                                                            \
    X(askin, "",                                                                                                       \
      "6f 00 00000005 00000018 | 0000000000000005 | 000003e8 | 0000000000000009 | 6e6f773f",                           \
      .stream = 5, .corr = 5, .timeout_ms = 1000, .to = 9, .payload = B("now?"))                                       \
    X(join, "the participant 10 takes part from now on",                                                               \
      "70 00 00000005 0000000c | 00000001 | 000000000000000a",                                                         \
      .stream = 5, .corr = 1, .participant = 10)                                                                       \
    X(join, "the participant 11, without whom the conversation fails",                                                 \
      "70 08 00000005 0000001a | 00000002 | 000000000000000b | 0001 08 7265717569726564 0001 31",                      \
      .stream = 5, .corr = 2, .participant = 11, .options = B("\000\001\010required\000\0011"))                        \
    X(joined, "",                                                                                                      \
      "71 00 00000005 00000008 | 00000001 | 0000 | 0000",                                                              \
      .stream = 5, .corr = 1)                                                                                          \
    X(joined, "refused: it takes part already (code 6)",                                                               \
      "71 00 00000005 00000016 | 00000002 | 0006 | 000e 616c726561647920657869737473",                                 \
      .stream = 5, .corr = 2, .code = 6, .detail = B("already exists"))                                                \
    X(depart, "the participant 10 takes part no longer; JOINED answers",                                               \
      "72 00 00000005 0000000c | 00000003 | 000000000000000a",                                                         \
      .stream = 5, .corr = 3, .participant = 10)                                                                       \
    X(signalled, "",                                                                                                   \
      "73 00 00000000 0000000c | 0000000000000006 | 0000 | 0000",                                                      \
      .corr = 6)                                                                                                       \
    X(signalled, "it has ended (code 2)",                                                                              \
      "73 00 00000000 0000001c | 0000000000000007 | 0002 | 0010 6e6f206c6f6e67657220657869737473",                     \
      .corr = 7, .code = 2, .detail = B("no longer exists"))                                                           \
    X(find, "the living conversation `room-1`",                                                                        \
      "74 00 00000000 0000000f | 0000000000000008 | 06 726f6f6d2d31",                                                  \
      .corr = 8, .name = B("room-1"))                                                                                  \
    X(found, "",                                                                                                       \
      "75 00 00000000 00000014 | 0000000000000008 | 000000000000005d | 0000 | 0000",                                   \
      .corr = 8, .conversation = 93)                                                                                   \
    X(found, "there is none of that name (code 7)",                                                                    \
      "75 00 00000000 0000001d | 0000000000000009 | 0000000000000000 | 0007 | 0009 6e6f7420666f756e64",                \
      .corr = 9, .code = 7, .detail = B("not found"))                                                                  \
    X(fault, "over the size limit (code 8)",                                                                           \
      "7f 00 00000000 0000000b | 0008 | 0007 746f6f20626967",                                                          \
      .code = 8, .detail = B("too big"))

#endif
