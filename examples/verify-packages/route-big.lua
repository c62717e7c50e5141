-- route-big.lua - big packages go to workers tagged `big`, everything else to the least loaded of the others.
--
-- Deployed while the main job runs: liminal deploy verify route-big.lua. A full worker may be returned too: the task then
-- stays in the queue until there is room. When nobody tagged `big` is alive, big packages go wherever there is room.
local big_bytes = 16 * 1024 * 1024

local function least_loaded(candidates, wanted)
    local best
    for _, c in ipairs(candidates) do
        if wanted == nil or (not c.tags.big) == (not wanted) then
            if best == nil or c.available > best.available then
                best = c
            end
        end
    end
    return best
end

return function(msg, candidates)
    local bytes = msg.bytes
    local is_big = bytes ~= nil and bytes > big_bytes
    return least_loaded(candidates, is_big) or least_loaded(candidates, nil)
end
