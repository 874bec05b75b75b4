-- Answers sightings in order and records what is new, as Rule::decide says.
--
-- KEYS     the names of the keys
-- ARGV[1]  '1': a sliding window
-- ARGV[2]  after how many milliseconds a record may go; '0': never
-- ARGV[3]  24 bytes for each key: the least bucket that matches, its bucket, its token
--
-- A record is 16 bytes, bucket and token, and the reply has 9 bytes for each
-- key: 'N' (new) or 'S' (seen), and the bucket that is recorded now. Numbers
-- here are doubles, so buckets are compared by their halves, and tokens as bytes.

local sliding, lifetime, asked = ARGV[1] == '1', ARGV[2], ARGV[3]
local foreign = redis.error_reply('HAPAX the value of a key is no record: another program wrote it')

-- MGET instead of a GET for each key saves a sixth of the time; `written` is what
-- has changed since.
local found, written = redis.call('MGET', unpack(KEYS)), {}

-- False iff the key holds something that MGET does not show: no string.
local function record(name, value, condition)
  written[name] = value
  if lifetime == '0' then
    return redis.call('SET', name, value, condition)
  end
  return redis.call('SET', name, value, condition, 'PX', lifetime)
end

local function before(one, one_at, other, other_at)
  local one_high, one_low = struct.unpack('>i4I4', one, one_at)
  local other_high, other_low = struct.unpack('>i4I4', other, other_at)
  return one_high < other_high or (one_high == other_high and one_low < other_low)
end

local answers = {}
for index, name in ipairs(KEYS) do
  local least = (index - 1) * 24 + 1
  local own = asked:sub(least + 8, least + 23)
  local held = written[name] or found[index]
  if held and #held ~= 16 then
    return foreign
  elseif not held then
    if not record(name, own, 'NX') then
      return foreign
    end
    answers[index] = 'N' .. own:sub(1, 8)
  elseif held:sub(9) == own:sub(9) then
    if before(held, 1, own, 1) then
      record(name, own, 'XX')
      held = own
    end
    answers[index] = 'N' .. held:sub(1, 8)
  elseif before(held, 1, asked, least) then
    record(name, own, 'XX')
    answers[index] = 'N' .. own:sub(1, 8)
  elseif sliding and before(held, 1, own, 1) then
    record(name, own:sub(1, 8) .. held:sub(9), 'XX')
    answers[index] = 'S' .. own:sub(1, 8)
  else
    answers[index] = 'S' .. held:sub(1, 8)
  end
end
return table.concat(answers)
