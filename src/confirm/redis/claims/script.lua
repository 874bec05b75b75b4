-- Answers what is asked about an identity, as Entry::claim, Entry::settle and
-- Entry::status say, and writes what that comes to.
--
-- KEYS[1]  the identity's name
-- ARGV[1]  what is asked: 'claim', 'look' or a settlement
-- ARGV[2]  the token
-- ARGV[3]  the lease
-- ARGV[4]  how long to keep what comes of it
-- ARGV[5]  the digest, with a claim or an adoption
-- ARGV[6]  how it ended, with an outcome
-- ARGV[7]  the outcome's bytes
--
-- All times are in microseconds. Numbers here are doubles, which are exact up to 2^53:
-- later than 2255 is never. An entry is its head (state, digest, token, fence, attempt,
-- whether it is a takeover, since, deadline, expiry) and its outcome.

local HEAD, HEAD_BYTES = '>c1c32c8I8I4BI8I8I8', 78
local HELD, FINISHED, FREE = 'H', 'F', '-'
local GRANTED, IN_FLIGHT, MISMATCH = 'G', 'I', 'M'
local DONE, STALE = 'D', 'S'
local MOST_ATTEMPTS, NEVER = 4294967295, 2 ^ 53

local asked, token, digest = ARGV[1], ARGV[2], ARGV[5]
local lease, keep = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function entry(value)
  local read = { outcome = value:sub(HEAD_BYTES + 1) }
  read.state, read.digest, read.token, read.fence, read.attempt, read.takeover,
    read.since, read.deadline, read.expires = struct.unpack(HEAD, value)
  return read
end

local function is_entry(value)
  local state = value:sub(1, 1)
  if state == FINISHED then
    return #value > HEAD_BYTES
  end
  return #value == HEAD_BYTES and (state == HELD or state == FREE)
end

local value = redis.call('GET', KEYS[1])
if value and not is_entry(value) then
  return redis.error_reply('HAPAX the value of a key is no claim: another program wrote it')
end
local stored = value and entry(value) or nil
-- What is stored, while it means something.
local held = stored and now < stored.expires and stored or nil
local state = held and held.state
local is_own = held and held.token == token

local function after(start, span)
  return math.min(start + span, NEVER)
end

local function write(new)
  local head = struct.pack(HEAD, new.state, new.digest, new.token, new.fence, new.attempt,
    new.takeover, new.since, new.deadline, new.expires)
  local last_ms = string.format('%.0f', math.ceil(new.expires / 1000))
  redis.call('SET', KEYS[1], head .. new.outcome, 'PXAT', last_ms)
end

local function hold(new, since)
  new.state, new.since, new.deadline, new.outcome = HELD, since, after(now, lease), ''
  new.expires = after(new.deadline, keep)
  write(new)
end

local function finish(new)
  new.state, new.since, new.deadline, new.outcome = FINISHED, 0, 0, ARGV[6] .. ARGV[7]
  new.expires = after(now, keep)
  write(new)
  return DONE
end

local function free(new)
  new.state, new.since, new.deadline, new.outcome = FREE, 0, 0, ''
  new.expires = after(now, lease)
  write(new)
  return DONE
end

-- What is granted to the request, after `before`.
local function granted(before, attempt, takeover)
  local fence = now
  if before and before.fence >= now then
    fence = before.fence + 1
  end
  return { digest = digest, token = token, fence = fence, attempt = attempt, takeover = takeover }
end

local function next_attempt()
  return math.min(held.attempt + 1, MOST_ATTEMPTS)
end

local function grant(attempt, takeover)
  local new = granted(stored, attempt, takeover)
  hold(new, now)
  return GRANTED .. struct.pack('>I8I4B', new.fence, new.attempt, new.takeover)
end

local function in_flight()
  local remaining = math.max(held.deadline - now, 0)
  return IN_FLIGHT .. struct.pack('>I8I8I8I4B',
    held.since, remaining, held.fence, held.attempt, held.takeover)
end

local answers = {}

function answers.claim()
  if not held then
    return grant(1, 0)
  elseif state == FREE then
    return grant(next_attempt(), 0)
  elseif state == HELD and is_own then
    -- Asked again: nobody has worked under this claim yet, whatever its payload.
    held.digest = digest
    hold(held, held.since)
    return GRANTED .. struct.pack('>I8I4B', held.fence, held.attempt, held.takeover)
  elseif held.digest ~= digest then
    return MISMATCH
  elseif state == FINISHED then
    return FINISHED .. held.outcome
  elseif now < held.deadline then
    return in_flight()
  end
  return grant(next_attempt(), 1)
end

function answers.look()
  if state == HELD then
    return in_flight()
  elseif state == FINISHED then
    return FINISHED .. held.outcome
  end
  return FREE
end

function answers.complete()
  if is_own and state == HELD then
    return finish(held)
  end
  -- Said again: the first reply was lost.
  return is_own and state == FINISHED and DONE or STALE
end

function answers.release()
  if is_own and state == HELD then
    return free(held)
  end
  return (not held or is_own and state == FREE) and DONE or STALE
end

function answers.extend()
  if is_own and state == HELD then
    hold(held, held.since)
    return DONE
  end
  return STALE
end

function answers.adopt()
  if is_own and state == FINISHED then
    return DONE
  end
  local is_open = not held or state == FREE or state == HELD and now >= held.deadline
  if is_own or is_open then
    return finish(granted(held, held and next_attempt() or 1, 0))
  end
  return STALE
end

function answers.clear()
  if held and state ~= FREE then
    return free(held)
  end
  return DONE
end

return answers[asked]()
