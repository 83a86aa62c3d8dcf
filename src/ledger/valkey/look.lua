-- How the caps of offers stand. Writes nothing.
--
-- KEYS: `caps` of each offer.

local offers = {}
for i, caps_key in ipairs(KEYS) do
  local rows = {}
  for name, value in pairs(read_hash(caps_key)) do
    if string.find(name, ':', 1, true) then
      rows[#rows + 1] = row(read_held(caps_key, name), name, read_cap(value))
    end
  end
  offers[i] = rows
end
return { digits(now), offers }
