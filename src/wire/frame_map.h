/* SPDX-License-Identifier: Apache-2.0
 * frame_map.h - the whole protocol as one table: every frame, and the fields of every frame.
 *
 * Everything else is generated from here: the structs, the decoders and encoders (frame.h), names, directions, scopes
 * and the text dump (frame.c), the round-trip tests and the table of frames in docs/protocol.md. To add a frame:
 * one line in LIM__FRAME_MAP, one LIM__FIELDS_x, one golden line in frame_golden_test.c, one section in the document.
 *
 *   F(type, NAME, name, sender, scope)   sender: CLIENT, SERVER, BOTH; scope: CONTROL (stream 0), STREAM (stream >= 1)
 *   X(kind, field, arg)
 *
 *   kind        bytes on the wire                                                arg
 *   u8 .. u64   big-endian                                                       -
 *   pick        u8, 1..arg, anything else is malformed                           largest value
 *   pick0       u8, 0..arg                                                       largest value
 *   name        u8 length + UTF-8                                                -
 *   text        u16 length + UTF-8, for people: the encoder cuts what is too long or not UTF-8
 *   names       u16 count + that many names                                      -
 *   lost        u16 count + that many (name, u64, u64)                           -
 *   id16        16 raw bytes                                                     -
 *   rest        all remaining bytes, always last                                 -
 *   opt_name    a name, there only if the frame's flag `arg` is set              flag
 *   opt_headers u16 count + that many (name key, text value), likewise; no empty  flag
 *               key; in memory a packed block as in data.h, count in front
 *   blob        u32 length + bytes (version 1.0)                                 -
 *   opt_string  u8 0, or u8 1 + u32 length + UTF-8 (version 1.0)                 -
 *
 * 0x01-0x19 keep their version-1.0 layout; version 2 begins at 0x40. */
#ifndef LIM__FRAME_MAP_H
#define LIM__FRAME_MAP_H

#define LIM__FRAME_MAP(F)                                                                                              \
    F(0x01, CONNECT, connect, CLIENT, CONTROL)                                                                         \
    F(0x02, CONNECT_ACK, connect_ack, SERVER, CONTROL)                                                                 \
    F(0x03, CONNECT_ERROR, connect_error, SERVER, CONTROL)                                                             \
    F(0x04, DISCONNECT, disconnect, BOTH, CONTROL)                                                                     \
    F(0x13, PING, ping, BOTH, CONTROL)                                                                                 \
    F(0x14, PONG, pong, BOTH, CONTROL)                                                                                 \
    F(0x40, HELLO, hello, CLIENT, CONTROL)                                                                             \
    F(0x41, WELCOME, welcome, SERVER, CONTROL)                                                                         \
    F(0x42, PUBLISH, publish, CLIENT, CONTROL)                                                                         \
    F(0x43, PUBLISHED, published, SERVER, CONTROL)                                                                     \
    F(0x44, SUBSCRIBE, subscribe, CLIENT, STREAM)                                                                      \
    F(0x45, SUBSCRIBED, subscribed, SERVER, STREAM)                                                                    \
    F(0x46, DELIVER, deliver, SERVER, STREAM)                                                                          \
    F(0x47, ACK, ack, CLIENT, STREAM)                                                                                  \
    F(0x48, UNSUBSCRIBE, unsubscribe, CLIENT, STREAM)                                                                  \
    F(0x49, ENDED, ended, SERVER, STREAM)                                                                              \
    F(0x4a, DROPPED, dropped, SERVER, STREAM)                                                                          \
    F(0x4b, STORED, stored, SERVER, CONTROL)                                                                           \
    F(0x4c, CONFIRM, confirm, CLIENT, STREAM)                                                                          \
    F(0x4d, CONFIRMED, confirmed, SERVER, STREAM)                                                                      \
    F(0x4e, STEP, step, CLIENT, CONTROL)                                                                               \
    F(0x4f, STEPPED, stepped, SERVER, CONTROL)                                                                         \
    F(0x50, ASK, ask, CLIENT, CONTROL)                                                                                 \
    F(0x51, OUTCOME, outcome, SERVER, CONTROL)                                                                         \
    F(0x52, CANCEL, cancel, CLIENT, CONTROL)                                                                           \
    F(0x53, REPORT, report, CLIENT, STREAM)                                                                            \
    F(0x54, SERVE, serve, CLIENT, STREAM)                                                                              \
    F(0x55, SERVED, served, SERVER, STREAM)                                                                            \
    F(0x56, LEAVE, leave, CLIENT, STREAM)                                                                              \
    F(0x57, LEFT, left, SERVER, STREAM)                                                                                \
    F(0x58, REQUEST, request, SERVER, STREAM)                                                                          \
    F(0x59, TAKEN, taken, CLIENT, STREAM)                                                                              \
    F(0x5a, REPLY, reply, CLIENT, STREAM)                                                                              \
    F(0x5b, PROGRESS, progress, CLIENT, STREAM)                                                                        \
    F(0x5c, REVOKED, revoked, SERVER, STREAM)                                                                          \
    F(0x5d, HOLDING, holding, CLIENT, STREAM)                                                                          \
    F(0x5e, SETTLED, settled, SERVER, STREAM)                                                                          \
    F(0x5f, SAY, say, CLIENT, STREAM)                                                                                  \
    F(0x60, DISPATCH, dispatch, CLIENT, CONTROL)                                                                       \
    F(0x61, DISPATCHED, dispatched, SERVER, CONTROL)                                                                   \
    F(0x62, AWAIT, await, CLIENT, CONTROL)                                                                             \
    F(0x63, PART, part, CLIENT, STREAM)                                                                                \
    F(0x64, PARTIAL, partial, SERVER, CONTROL)                                                                         \
    F(0x65, GRANT, grant, CLIENT, CONTROL)                                                                             \
    F(0x66, CREDIT, credit, SERVER, STREAM)                                                                            \
    F(0x67, SIGNAL, signal, CLIENT, CONTROL)                                                                           \
    F(0x68, OPEN, open, CLIENT, STREAM)                                                                                \
    F(0x69, OPENED, opened, SERVER, STREAM)                                                                            \
    F(0x6a, SEND, send, CLIENT, STREAM)                                                                                \
    F(0x6b, SENT, sent, SERVER, STREAM)                                                                                \
    F(0x6c, MESSAGE, message, SERVER, STREAM)                                                                          \
    F(0x6d, CLOSE, close, CLIENT, STREAM)                                                                              \
    F(0x6e, CLOSED, closed, SERVER, STREAM)                                                                            \
    F(0x6f, ASKIN, askin, CLIENT, STREAM)                                                                              \
    F(0x70, JOIN, join, CLIENT, STREAM)                                                                                \
    F(0x71, JOINED, joined, SERVER, STREAM)                                                                            \
    F(0x72, DEPART, depart, CLIENT, STREAM)                                                                            \
    F(0x73, SIGNALLED, signalled, SERVER, CONTROL)                                                                     \
    F(0x74, FIND, find, CLIENT, CONTROL)                                                                               \
    F(0x75, FOUND, found, SERVER, CONTROL)                                                                             \
    F(0x76, DELIVERS, delivers, SERVER, STREAM)                                                                        \
    F(0x7f, FAULT, fault, SERVER, CONTROL)

/* Frames of version 1.0 that a version 2 session does not use: sending one is a fault, not a skip, because its sender
 * would wait for an answer. */
#define LIM__FRAME_OLD_MAP(F)                                                                                          \
    F(0x05, OLD_SUBSCRIBE)                                                                                             \
    F(0x06, OLD_SUBSCRIBE_ACK)                                                                                         \
    F(0x07, OLD_SUBSCRIBE_ERROR)                                                                                       \
    F(0x08, OLD_UNSUBSCRIBE)                                                                                           \
    F(0x09, OLD_PUBLISH)                                                                                               \
    F(0x0a, OLD_PUBLISH_ACK)                                                                                           \
    F(0x0b, OLD_PUBLISH_ERROR)                                                                                         \
    F(0x0c, OLD_CONVERSATION_OPEN)                                                                                     \
    F(0x0d, OLD_CONVERSATION_MESSAGE)                                                                                  \
    F(0x0e, OLD_CONVERSATION_CLOSE)                                                                                    \
    F(0x0f, OLD_CONVERSATION_ERROR)                                                                                    \
    F(0x10, OLD_ACCEPT)                                                                                                \
    F(0x11, OLD_DEFER)                                                                                                 \
    F(0x12, OLD_REJECT)                                                                                                \
    F(0x15, OLD_PUSH)                                                                                                  \
    F(0x16, OLD_PUSH_REPLY)                                                                                            \
    F(0x17, OLD_WORKER_REGISTER)                                                                                       \
    F(0x18, OLD_WORKER_REGISTER_ACK)                                                                                   \
    F(0x19, OLD_DELIVER)

/* ---- connection ---- */
#define LIM__FIELDS_connect(X)                                                                                         \
    X(u16, min_major, 0) X(u16, min_minor, 0) X(u16, max_major, 0) X(u16, max_minor, 0) X(blob, token, 0)
#define LIM__FIELDS_connect_ack(X)   X(u16, major, 0) X(u16, minor, 0) X(u32, capabilities, 0)
#define LIM__FIELDS_connect_error(X) X(u16, reason, 0) X(opt_string, message, 0)
#define LIM__FIELDS_disconnect(X)
#define LIM__FIELDS_ping(X)
#define LIM__FIELDS_pong(X)
#define LIM__FIELDS_hello(X) X(u32, features, 0) X(u32, liveness_ms, 0) X(id16, session, 0) X(name, client, 0) X(name, node, 0)
#define LIM__FIELDS_welcome(X)                                                                                         \
    X(u32, features, 0) X(u32, frame_max, 0) X(u32, ping_ms, 0) X(id16, session, 0) X(name, server, 0)                 \
    X(name, version, 0) X(name, durability_class, 0)
#define LIM__FIELDS_fault(X) X(u16, code, 0) X(text, detail, 0)

/* ---- channels ---- */
#define LIM__FIELDS_publish(X)                                                                                         \
    X(u32, corr, 0) X(name, channel, 0) X(opt_headers, headers, 0x01) X(opt_headers, options, 0x08) X(rest, payload, 0)
#define LIM__FIELDS_published(X)                                                                                       \
    X(u32, first_corr, 0) X(u32, count, 0) X(pick, verdict, 3) X(u8, why, 0) X(u32, matched, 0) X(u32, delivered, 0)   \
    X(u32, deferred, 0) X(u32, dropped, 0) X(u32, limit, 0) X(u32, current, 0) X(u32, retry_after_ms, 0)               \
    X(text, detail, 0)
#define LIM__FIELDS_subscribe(X)                                                                                       \
    X(u32, window, 0) X(u32, backlog, 0) X(pick0, policy, 4) X(name, pattern, 0) X(opt_headers, options, 0x08)
#define LIM__FIELDS_subscribed(X) X(u64, subscription, 0)
#define LIM__FIELDS_deliver(X)                                                                                         \
    X(u64, seq, 0) X(opt_headers, headers, 0x01) X(opt_name, channel, 0x02) X(rest, payload, 0)
/* `count` messages of a log, `first` and those that follow it; of each: u32 length of headers and payload, u16 length of the
 * headers, headers as in DELIVER, payload (data/block.h). */
#define LIM__FIELDS_delivers(X) X(u64, first, 0) X(u32, count, 0) X(rest, messages, 0)
#define LIM__FIELDS_ack(X)      X(u64, upto_seq, 0)
#define LIM__FIELDS_unsubscribe(X)
#define LIM__FIELDS_ended(X)   X(u16, code, 0) X(u64, delivered, 0) X(u64, dropped, 0) X(text, detail, 0)
#define LIM__FIELDS_dropped(X) X(u64, dropped_total, 0) X(pick, policy, 4)
/* Answers `count` PUBLISHes to a durable channel, corr, corr + 1 ..., which became seq, seq + 1 ... More than one: accepted. */
#define LIM__FIELDS_stored(X)                                                                                          \
    X(u32, corr, 0) X(u32, count, 0) X(pick, verdict, 3) X(u8, why, 0) X(u8, class, 0) X(pick0, duplicate, 1)          \
    X(u64, seq, 0) X(u64, at_us, 0) X(u64, due_us, 0) X(u32, matched, 0) X(u32, limit, 0) X(u32, current, 0)           \
    X(u32, retry_after_ms, 0) X(text, detail, 0)
/* how: 1 this message alone, 2 everything up to it, 3 not done: again after delay_ms, 4 delay_ms is a time that `seq` more
 * messages are wanted for (pull). corr 0: no answer is wanted. */
#define LIM__FIELDS_confirm(X)   X(u32, corr, 0) X(pick, how, 4) X(u32, delay_ms, 0) X(u64, seq, 0)
#define LIM__FIELDS_confirmed(X) X(u32, corr, 0) X(u16, code, 0) X(text, detail, 0)
/* The payload is a row of whole frames, PUBLISH, CONFIRM and REPLY, each as it would be sent alone: all or nothing. */
#define LIM__FIELDS_step(X)    X(u32, corr, 0) X(rest, frames, 0)
#define LIM__FIELDS_stepped(X) X(u32, corr, 0) X(u16, code, 0) X(text, detail, 0)

/* ---- groups ---- */
#define LIM__FIELDS_ask(X)                                                                                             \
    X(u64, corr, 0) X(u32, timeout_ms, 0) X(pick, on_crash, 3) X(u64, participant, 0) X(name, group, 0)                \
    X(name, type, 0) X(opt_headers, headers, 0x01) X(opt_headers, options, 0x08) X(rest, payload, 0)
#define LIM__FIELDS_outcome(X)                                                                                         \
    X(u64, corr, 0) X(pick, how, 8) X(pick, handed_over, 3) X(pick0, verdict, 3) X(u8, why, 0) X(u32, reason, 0)       \
    X(u64, conversation, 0) X(u64, compensation, 0) X(u64, crashed_us, 0) X(u64, rerouted_us, 0)                       \
    X(u32, limit, 0) X(u32, current, 0) X(u32, retry_after_ms, 0) X(u16, attempts, 0) X(u16, losses, 0)                \
    X(name, participant, 0) X(name, router, 0) X(lost, excluded, 0) X(text, detail, 0)                                \
    X(rest, payload, 0)
#define LIM__FIELDS_cancel(X) X(u64, corr, 0)
#define LIM__FIELDS_serve(X)                                                                                           \
    X(pick, kind, 2) X(u32, capacity, 0) X(name, namespace, 0) X(name, group, 0) X(name, identity, 0)                  \
    X(names, types, 0) X(names, tags, 0)
#define LIM__FIELDS_served(X) X(u64, participant, 0) X(name, identity, 0)
#define LIM__FIELDS_leave(X)
#define LIM__FIELDS_left(X) X(u16, code, 0) X(text, detail, 0)
#define LIM__FIELDS_request(X)                                                                                         \
    X(u64, conversation, 0) X(u64, lease, 0) X(u32, remaining_ms, 0) X(u16, attempt, 0) X(u16, losses, 0)              \
    X(u16, hops, 0) X(u32, credit, 0) X(pick0, event, 5) X(u64, from, 0) X(name, type, 0)                              \
    X(opt_headers, headers, 0x01) X(rest, payload, 0)
#define LIM__FIELDS_taken(X) X(u64, conversation, 0) X(u64, lease, 0)
#define LIM__FIELDS_reply(X)                                                                                           \
    X(u64, conversation, 0) X(u64, lease, 0) X(pick, how, 3) X(text, detail, 0) X(rest, payload, 0)
#define LIM__FIELDS_revoked(X)  X(u64, conversation, 0) X(u64, lease, 0) X(pick, why, 4)
#define LIM__FIELDS_holding(X)  X(u64, conversation, 0) X(u64, lease, 0)
#define LIM__FIELDS_settled(X)  X(u64, conversation, 0) X(u64, lease, 0) X(pick0, accepted, 1) X(text, detail, 0)
#define LIM__FIELDS_report(X)   X(u32, used, 0)
#define LIM__FIELDS_say(X)      X(u64, conversation, 0) X(u64, to, 0) X(rest, payload, 0)
#define LIM__FIELDS_progress(X) X(u64, conversation, 0) X(u64, lease, 0) X(text, note, 0)

/* ---- parts of an answer ---- */
#define LIM__FIELDS_part(X) X(u64, conversation, 0) X(u64, lease, 0) X(rest, payload, 0)
#define LIM__FIELDS_partial(X)                                                                                         \
    X(u64, corr, 0) X(u64, conversation, 0) X(u32, seq, 0) X(pick, how, 8) X(name, participant, 0)                     \
    X(text, detail, 0) X(rest, payload, 0)
#define LIM__FIELDS_grant(X)  X(u64, corr, 0) X(u32, parts, 0)
#define LIM__FIELDS_credit(X) X(u64, conversation, 0) X(u64, lease, 0) X(u32, parts, 0)

/* ---- queues ---- */
#define LIM__FIELDS_dispatch(X)                                                                                        \
    X(u64, corr, 0) X(u32, timeout_ms, 0) X(u16, losses_max, 0) X(name, queue, 0) X(name, type, 0)                     \
    X(opt_headers, headers, 0x01) X(opt_headers, options, 0x08) X(rest, payload, 0)
#define LIM__FIELDS_dispatched(X)                                                                                      \
    X(u64, corr, 0) X(pick, verdict, 3) X(u8, why, 0) X(u64, task, 0) X(u32, limit, 0) X(u32, current, 0)              \
    X(u32, retry_after_ms, 0) X(text, detail, 0)
#define LIM__FIELDS_await(X) X(u64, corr, 0) X(u64, task, 0)

/* ---- conversations ---- */
#define LIM__FIELDS_open(X)                                                                                            \
    X(u32, timeout_ms, 0) X(pick, on_crash, 3) X(u64, participant, 0) X(name, group, 0)                                \
    X(opt_headers, options, 0x08)
#define LIM__FIELDS_opened(X)  X(u64, conversation, 0) X(u16, code, 0) X(text, detail, 0)
#define LIM__FIELDS_send(X)    X(u32, corr, 0) X(u64, to, 0) X(rest, payload, 0)
#define LIM__FIELDS_sent(X)                                                                                            \
    X(u32, first_corr, 0) X(u32, count, 0) X(pick, verdict, 3) X(u8, why, 0) X(u8, phase, 0) X(u8, wanted, 0)          \
    X(u32, matched, 0) X(u32, delivered, 0) X(u32, dropped, 0) X(u32, limit, 0) X(u32, current, 0)                     \
    X(u32, retry_after_ms, 0) X(text, detail, 0)
#define LIM__FIELDS_message(X) X(u64, from, 0) X(u64, seq, 0) X(pick0, event, 4) X(name, note, 0) X(rest, payload, 0)
#define LIM__FIELDS_close(X)
#define LIM__FIELDS_closed(X)  X(u8, phase, 0) X(u32, reason, 0) X(text, detail, 0)
#define LIM__FIELDS_askin(X)   X(u64, corr, 0) X(u32, timeout_ms, 0) X(u64, to, 0) X(rest, payload, 0)
#define LIM__FIELDS_join(X)    X(u32, corr, 0) X(u64, participant, 0) X(opt_headers, options, 0x08)
#define LIM__FIELDS_joined(X)  X(u32, corr, 0) X(u16, code, 0) X(text, detail, 0)
#define LIM__FIELDS_depart(X)  X(u32, corr, 0) X(u64, participant, 0)

/* ---- conversations from outside ---- */
#define LIM__FIELDS_signal(X)    X(u64, corr, 0) X(u64, conversation, 0) X(name, name, 0) X(rest, payload, 0)
#define LIM__FIELDS_signalled(X) X(u64, corr, 0) X(u16, code, 0) X(text, detail, 0)
#define LIM__FIELDS_find(X)      X(u64, corr, 0) X(name, name, 0)
#define LIM__FIELDS_found(X)     X(u64, corr, 0) X(u64, conversation, 0) X(u16, code, 0) X(text, detail, 0)

#endif
