-- One budget of weighted calls in several sliding windows, exactly as cluster/providers/budget.py.
-- KEYS: until when the provider closed it; one list a window; the name of this memory, new after a loss.
-- ARGV: weight to take (0: none), microseconds to close for (0: none), the name that the caller knows ('': none),
--       a name for a new memory; then limit, length in microseconds, weight that the provider says is used, and
--       weight that the caller remembers to be used, for every window. That counts when the memory was lost.
-- Answers: 1 when taken, the time, microseconds until it may fit, the name; then what is left of every window.
-- A grant is "time weight total", the total being that of all grants of the list up to it.

local function text(number) return string.format('%.0f', number) end

local function read(grant)
  local at, weight, total = string.match(grant, '(%d+) (%d+) (%d+)')
  return tonumber(at), tonumber(weight), tonumber(total)
end

local function push(key, at, weight, total, length)
  redis.call('RPUSH', key, text(at) .. ' ' .. text(weight) .. ' ' .. text(total))
  redis.call('PEXPIRE', key, text(math.ceil(length / 1000) + 1000))
end

-- The time of the first grant after which, all up to it forgotten, `excess` is free.
local function freed_at(key, base, excess)
  local from = 0
  while true do
    for _, grant in ipairs(redis.call('LRANGE', key, from, from + 99)) do
      local at, _, total = read(grant)
      if total - base >= excess then return at end
    end
    from = from + 100
  end
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i = 2, #KEYS - 1 do -- a clock that was set back stands still until it is where it was
  local tail = redis.call('LINDEX', KEYS[i], -1)
  if tail then now = math.max(now, (read(tail))) end
end

local weight, close_for = tonumber(ARGV[1]), tonumber(ARGV[2])
local closed_until = tonumber(redis.call('GET', KEYS[1]) or '0')
if close_for > 0 and now + close_for > closed_until then
  closed_until = now + close_for
  redis.call('SET', KEYS[1], text(closed_until), 'PX', text(math.ceil(close_for / 1000) + 1000))
end

local name = redis.call('GET', KEYS[#KEYS])
local lost = ARGV[3] ~= '' and name ~= ARGV[3]
name = name or ARGV[4]

local retry_at, longest = math.max(now, closed_until), 0
local windows = {}
for i = 2, #KEYS - 1 do
  local key, at = KEYS[i], 4 * (i - 2) + 5
  local limit, length, told = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  longest = math.max(longest, length)
  if lost then told = math.max(told, tonumber(ARGV[at + 3])) end
  local head = redis.call('LINDEX', key, 0)
  while head and read(head) + length <= now do
    redis.call('LPOP', key)
    head = redis.call('LINDEX', key, 0)
  end
  local base, total = 0, 0
  if head then
    local _, first, upto = read(head)
    base = upto - first
    local _, _, all = read(redis.call('LINDEX', key, -1))
    total = all
  end
  if told > total - base then
    push(key, now, told - (total - base), told + base, length)
    total = told + base
  end
  local excess = total - base + weight - limit
  if weight > 0 and excess > 0 then
    retry_at = math.max(retry_at, freed_at(key, base, excess) + length)
  end
  windows[#windows + 1] = {key = key, limit = limit, length = length, base = base, total = total}
end

local taken = weight > 0 and retry_at <= now
redis.call('SET', KEYS[#KEYS], name, 'PX', text(math.ceil(longest / 1000) + 1000))
local answer = {taken and 1 or 0, now, retry_at - now, name}
for _, window in ipairs(windows) do
  if taken then
    window.total = window.total + weight
    push(window.key, now, weight, window.total, window.length)
  end
  local left = math.max(0, window.limit - (window.total - window.base))
  answer[#answer + 1] = closed_until > now and 0 or left
end
return answer
