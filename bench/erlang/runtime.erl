%% SPDX-License-Identifier: Apache-2.0
%% runtime.erl - the work of bench/runtime.c in Erlang/OTP, under the same names.
%%
%%     erlc runtime.erl && erl -noshell +S 1:1 -s runtime one
%%                         erl -noshell +S 2:2 -s runtime two
%%
%% What the names mean is written there. Each thing is done as an Erlang programmer would who wants it fast: messages
%% are immediate terms, the 128 bytes are a counted binary that is not copied, nothing is measured while it is loaded
%% for the first time. Where bench/runtime.c puts processes on schedulers, spawn_opt's {scheduler, N} does the same
%% (it is not documented, but works in every OTP so far); `free` is the balancer's own choice.
%%
%% Rounds have fewer of everything, so that they are as short in time: a few milliseconds, which another program on the
%% machine leaves alone now and then. Percentiles are exact up to 10 us, then to 100 ns, from 10 ms on to 1 ms; they are
%% those of the round with the best mean, over single round trips with one reading of the clock in each.
-module(runtime).
-export([one/0, two/0]).
-export([init/1, handle_call/3, handle_cast/2]).
-define(CALLERS, 64).
-define(BATCH, 256).
-define(BUSY, 8).
-define(BUCKETS, 120001).

now_ns() -> erlang:monotonic_time(nanosecond).
result(Name, Value, Unit) -> io:format("RESULT ~s ~.1f ~s~n", [Name, float(Value), Unit]).

%% Measures in a process of its own, whose heap goes with it.
round(F, Count) ->
    {Pid, Ref} = spawn_monitor(fun() -> exit({value, F(Count)}) end),
    receive {'DOWN', Ref, process, Pid, {value, Value}} -> Value end.
best(Rounds, F, Count) -> lists:min([round(F, Count) || _ <- lists:seq(1, Rounds)]).
best_ns(Name, Rounds, F, Count) -> result(Name, best(Rounds, F, Count), "ns").
best_rate(Name, Rounds, F, Count) -> result(Name, 1.0e9 / best(Rounds, F, Count), "req/s").

timed(F, Count) ->
    T0 = now_ns(),
    F(),
    (now_ns() - T0) / Count.

one() ->
    {module, _} = code:ensure_loaded(?MODULE),
    result("runtime_idle_process", idle_bytes(100000), "bytes"),
    best_ns("runtime_clock", 20, fun clock_cost/1, 10000),
    best_ns("runtime_round_trip_same", 200, fun round_trip/1, 3000),
    distribution("runtime_round_trip_same", 20, 30000, free),
    best_ns("runtime_one_way_128", 200, fun one_way/1, 12800),
    best_ns("runtime_spawn_exit_down", 200, fun spawn_exit_down/1, 1500),
    best_ns("runtime_cascade_per_link", 30, fun cascade/1, 10000),
    halt().

two() ->
    {module, _} = code:ensure_loaded(?MODULE),
    {module, _} = code:ensure_loaded(gen_server),
    best_ns("runtime_cross_pipelined", 100, fun cross_pipelined/1, 10000),
    best_ns("runtime_cross_single", 40, fun cross_single/1, 1000),
    distribution("runtime_cross_single", 10, 5000, apart),
    Busy = [spawn_opt(fun busy/0, [{scheduler, S}]) || S <- [1, 2], _ <- lists:seq(1, ?BUSY)],
    distribution("runtime_cross_busy", 10, 2000, apart),
    best_ns("runtime_cross_busy_pipelined", 20, fun cross_pipelined/1, 10000),
    [exit(Pid, kill) || Pid <- Busy],
    best_rate("runtime_callers_64_apart", 40, fun(N) -> callers(N, apart) end, 6400),
    best_rate("runtime_callers_64_free", 40, fun(N) -> callers(N, free) end, 6400),
    best_rate("runtime_requests_64_apart", 40, fun(N) -> requests(N, apart) end, 6400),
    best_rate("runtime_requests_64_free", 40, fun(N) -> requests(N, free) end, 6400),
    halt().

%% ---- memory ----
idle_bytes(Count) ->
    erlang:garbage_collect(),
    Before = resident_bytes(),
    idle_spawn(Count),
    (resident_bytes() - Before) / Count.

idle_spawn(0) -> ok;
idle_spawn(N) -> spawn(fun() -> idle({0, 0, 0, 0}) end), idle_spawn(N - 1).
idle(State) -> receive stop -> State end.

resident_bytes() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:tokens(binary_to_list(Text), " "),
    list_to_integer(Pages) * 4096.

%% ---- one scheduler ----
clock_cost(Count) -> timed(fun() -> clock_loop(Count) end, Count).
clock_loop(0) -> ok;
clock_loop(N) -> now_ns(), clock_loop(N - 1).

round_trip(Count) ->
    Echo = spawn_link(fun echo/0),
    Ns = timed(fun() -> ping(Echo, self(), Count) end, Count),
    unlink(Echo), exit(Echo, kill),
    Ns.

echo() -> receive From -> From ! ok, echo() end.
ping(_, _, 0) -> ok;
ping(Echo, Self, N) -> Echo ! Self, receive ok -> ping(Echo, Self, N - 1) end.

one_way(Count) ->
    Body = binary:copy(<<"x">>, 128),
    Self = self(),
    To = spawn_link(fun() -> streamed(Self, Count, ?BATCH) end),
    timed(fun() -> stream(To, Body, Count, ?BATCH), receive finished -> ok end end, Count).

stream(_, _, 0, _) -> ok;
stream(To, Body, N, 0) -> receive more -> stream(To, Body, N, ?BATCH) end;
stream(To, Body, N, Batch) -> To ! Body, stream(To, Body, N - 1, Batch - 1).
streamed(From, 0, _) -> From ! finished;
streamed(From, N, 0) -> From ! more, streamed(From, N, ?BATCH);
streamed(From, N, Batch) -> receive _ -> streamed(From, N - 1, Batch - 1) end.

spawn_exit_down(Count) -> timed(fun() -> spawn_loop(Count) end, Count).
spawn_loop(0) -> ok;
spawn_loop(N) ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Ref, process, Pid, normal} -> spawn_loop(N - 1) end.

%% A chain; the first one fails; told by the last one's death.
cascade(Count) ->
    First = spawn(fun idle_link/0),
    Last = chain(First, Count - 1),
    Ref = monitor(process, Last),
    timed(fun() -> First ! fail, receive {'DOWN', Ref, process, Last, fault} -> ok end end, Count).

idle_link() -> receive fail -> exit(fault) end.
chain(Previous, 0) -> Previous;
chain(Previous, N) ->
    Self = self(),
    Next = spawn(fun() -> link(Previous), Self ! linked, idle_link() end),
    receive linked -> chain(Next, N - 1) end.

%% ---- two schedulers ----
on(_, F, free) -> spawn_link(F);
on(Scheduler, F, apart) -> spawn_opt(F, [link, {scheduler, Scheduler}]).

%% Runs F where it has to be, tells its value.
from(Scheduler, F) ->
    Self = self(),
    on(Scheduler, fun() -> Self ! {value, F()} end, apart),
    receive {value, Value} -> Value end.

cross_single(Count) ->
    Echo = on(2, fun echo/0, apart),
    from(1, fun() -> timed(fun() -> ping(Echo, self(), Count) end, Count) end).

cross_pipelined(Count) ->
    Echo = on(2, fun echo/0, apart),
    from(1, fun() ->
        Self = self(),
        timed(fun() -> [Echo ! Self || _ <- lists:seq(1, ?BATCH)], pipelined(Echo, Self, Count) end, Count)
    end).
pipelined(_, _, 0) -> ok;
pipelined(Echo, Self, N) -> receive ok -> Echo ! Self, pipelined(Echo, Self, N - 1) end.

busy() -> self() ! more, receive more -> busy() end.

callers(Count, Where) ->
    Server = on(2, fun echo/0, Where),
    called(Count, Where, fun(N) -> ping(Server, self(), N) end).

requests(Count, Where) ->
    {ok, Server} = gen_server:start_link(?MODULE, [], [{spawn_opt, [{scheduler, 2} || Where =:= apart]}]),
    Ns = called(Count, Where, fun(N) -> request(Server, N) end),
    gen_server:stop(Server),
    Ns.
request(_, 0) -> ok;
request(Server, N) -> ok = gen_server:call(Server, ask), request(Server, N - 1).

called(Count, Where, Call) ->
    Self = self(),
    Caller = fun() -> receive go -> Call(Count div ?CALLERS), Self ! finished end end,
    Callers = [on(1, Caller, Where) || _ <- lists:seq(1, ?CALLERS)],
    timed(fun() ->
        [Pid ! go || Pid <- Callers],
        [receive finished -> ok end || _ <- Callers]
    end, Count).

init(_) -> {ok, none}.
handle_call(ask, _, State) -> {reply, ok, State}.
handle_cast(_, State) -> {noreply, State}.

%% ---- distributions ----
distribution(Name, Rounds, Count, Where) ->
    Round = fun(N) -> distribution_round(N, Where) end,
    {_, Buckets} = lists:min([round(Round, Count) || _ <- lists:seq(1, Rounds)]),
    [result(Name ++ Suffix, percentile(Buckets, Count * Share, 1), "ns")
     || {Suffix, Share} <- [{".p50", 0.5}, {".p99", 0.99}, {".p99.9", 0.999}]].

distribution_round(Count, Where) ->
    Buckets = counters:new(?BUCKETS, []),
    Echo = on(2, fun echo/0, Where),
    Measure = fun() -> timed(fun() -> ping_timed(Echo, self(), Count, Buckets) end, Count) end,
    {case Where of apart -> from(1, Measure); free -> Measure() end, Buckets}.

ping_timed(_, _, 0, _) -> ok;
ping_timed(Echo, Self, N, Buckets) ->
    T0 = now_ns(),
    Echo ! Self,
    receive ok -> ok end,
    counters:add(Buckets, bucket(now_ns() - T0), 1),
    ping_timed(Echo, Self, N - 1, Buckets).

bucket(Ns) when Ns < 10000 -> Ns + 1;
bucket(Ns) when Ns < 10000000 -> 10001 + Ns div 100;
bucket(Ns) -> min(110001 + Ns div 1000000, ?BUCKETS).
value(Bucket) when Bucket =< 10000 -> Bucket - 1;
value(Bucket) when Bucket =< 110000 -> (Bucket - 10001) * 100 + 50;
value(Bucket) -> (Bucket - 110001) * 1000000 + 500000.

percentile(Buckets, Left, Bucket) ->
    case Left - counters:get(Buckets, Bucket) of
        Rest when Rest =< 0; Bucket =:= ?BUCKETS -> value(Bucket);
        Rest -> percentile(Buckets, Rest, Bucket + 1)
    end.
