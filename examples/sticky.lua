-- SPDX-License-Identifier: Apache-2.0
-- sticky.lua - a session stays with one worker, among the workers with the tag that the message names.
--
--     liminal work carts --tag eu ...          liminal deploy carts sticky.lua
--     {"session": "s-4711", "region": "eu", ...}
--
-- Each worker gets a number out of the session's name and its own, and the highest has the session. So when a worker
-- comes or goes, only the sessions move that have to; when one is full, its sessions go to their second choice until it
-- has room again. Nothing is remembered but numbers that can be made again, so a restart changes nothing.

local function hash(text)
    local h = 1469598103934665603
    for i = 1, #text do
        h = (h ~ text:byte(i)) * 1099511628211
    end
    return h
end

local of_worker = {} -- id to number: a worker's name is walked once, not with every message

local function rank(session, id)
    of_worker[id] = of_worker[id] or hash(id)
    local x = session ~ of_worker[id]
    x = (x ~ x >> 33) * -49064778989728563
    return x ~ x >> 33
end

return function(msg, candidates)
    local region, session = msg.region, hash(tostring(msg.session or msg("$header.session")))
    local best, best_rank, tagged = nil, nil, false
    for i = 1, #candidates do
        local c = candidates[i]
        local has = region ~= nil and c.tags[region] == true
        if (has or not tagged) and c.available > 0 then
            local r = rank(session, c.id)
            if best == nil or r > best_rank or (has and not tagged) then
                best, best_rank = c, r
            end
            tagged = tagged or has
        end
    end
    return best -- nil if all who may are full: a task waits, an ask is refused
end
