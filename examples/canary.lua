-- SPDX-License-Identifier: Apache-2.0
-- canary.lua - five of a hundred messages go to the workers with the tag "canary", the others to the rest.
--
--     liminal work thumbnails --tag canary ...          liminal deploy thumbnails canary.lua
--
-- Counted, not by chance: of any hundred messages in a row exactly five, spread evenly. A message that carries the header
-- "canary" says itself where it wants to go. If one side is empty or full, the other takes its messages.

local PERCENT = 5

local function least_loaded(candidates, canary)
    local best
    for i = 1, #candidates do
        local c = candidates[i]
        if (c.tags.canary or false) == canary and c.available > 0 and (best == nil or c.in_flight < best.in_flight) then
            best = c
        end
    end
    return best
end

return function(msg, candidates)
    local wish = msg("$header.canary")
    local canary = counter() * PERCENT % 100 < PERCENT
    if wish ~= nil then
        canary = wish == "yes"
    end
    return least_loaded(candidates, canary) or least_loaded(candidates, not canary)
end
