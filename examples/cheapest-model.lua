-- SPDX-License-Identifier: Apache-2.0
-- cheapest-model.lua - agents that run models of different price: the cheapest that will do, a dearer one if it is busy.
--
--     liminal work agents --tag small ...          liminal deploy agents cheapest-model.lua
--     {"prompt": "...", "model": "medium"}
--
-- An agent's tag names the model it runs. A message may name the least that will do; without it the cheapest does. An
-- agent counts as saturated when it is full or when more wait for it than it has places. When all that would do are, the
-- one whose line is shortest is chosen, whatever its price: a task waits for it, an ask is refused.

local MODELS = { "small", "medium", "large" } -- by price

local function least(msg)
    local model = msg.model
    for i = 1, #MODELS do
        if MODELS[i] == model then
            return i
        end
    end
    if model ~= nil then
        print("no such model:", model)
    end
    return 1
end

-- The index of what an agent runs; nil: none of these.
local function runs(c)
    for i = #MODELS, 1, -1 do
        if c.tags[MODELS[i]] then
            return i
        end
    end
end

return function(msg, candidates)
    local from = least(msg)
    local free, free_price, shortest
    for i = 1, #candidates do
        local c = candidates[i]
        local price = runs(c)
        if price ~= nil and price >= from then
            local saturated = c.available == 0 or c.buffer_depth > c.max_in_flight
            local cheaper = free == nil or price < free_price
            if not saturated and (cheaper or (price == free_price and c.available > free.available)) then
                free, free_price = c, price
            end
            if shortest == nil or c.buffer_depth < shortest.buffer_depth then
                shortest = c
            end
        end
    end
    return free or shortest
end
