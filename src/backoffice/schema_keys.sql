-- The keys of those who call the API, each by a name. The key itself is shown once and kept nowhere.

CREATE TABLE api_keys (
    name         TEXT NOT NULL PRIMARY KEY CHECK (name <> ''),
    -- BLAKE3 of the key.
    hash         BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- RFC 3339, in UTC.
    created_at   TEXT NOT NULL CHECK (created_at <> ''),
    -- A day of UTC, so that a key in use costs one write a day.
    last_used_on TEXT          CHECK (length(last_used_on) = 10)
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_by_hash_prefix ON api_keys (substr(hash, 1, 8));
