-- SPDX-License-Identifier: Apache-2.0
-- capacity.lua - whoever has most room; of those with equal room, whoever answers sooner.
--
--     liminal deploy quotes capacity.lua
--
-- Room counts, not share: ten free places of a hundred are more than one of one. A function this plain is run without
-- counting its instructions: it calls nothing, writes to no table, and its loop goes over #candidates.

return function(msg, candidates)
    local best = candidates[1]
    for i = 2, #candidates do
        local c = candidates[i]
        if c.available > best.available or (c.available == best.available and c.latency_us < best.latency_us) then
            best = c
        end
    end
    return best
end
