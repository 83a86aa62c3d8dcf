-- The ledger: what of each cap is used in the window at hand, who holds how much of the rest, and the conversions.
-- Moments of the wall clock are in milliseconds since 1970 (`…_at`), windows in seconds; `…uptime_ms` is of the boot
-- that `ledger` names.

CREATE TABLE ledger (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    -- Random, and never another: tells this file from one that takes its place. 64 bits without a sign.
    identity  INTEGER NOT NULL,
    -- Counts the changes of standings.
    news      INTEGER NOT NULL,
    boot      BLOB    NOT NULL,
    -- When something was last written.
    uptime_ms INTEGER NOT NULL,
    pruned_at INTEGER NOT NULL
) STRICT;

-- A cap that was removed keeps its row, so that setting it again does not begin its window anew.
CREATE TABLE caps (
    cap_id       INTEGER PRIMARY KEY,
    offer_id     INTEGER NOT NULL,
    -- 0: every affiliate.
    affiliate_id INTEGER NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('click', 'conversion')),
    interval     TEXT    NOT NULL CHECK (interval IN ('lifetime', 'daily', 'weekly', 'monthly')),
    amount       INTEGER NOT NULL CHECK (amount >= 0),
    zone         TEXT    NOT NULL,
    alert_only   INTEGER NOT NULL CHECK (alert_only IN (0, 1)),
    in_force     INTEGER NOT NULL CHECK (in_force IN (0, 1)),
    window_start INTEGER NOT NULL,
    window_end   INTEGER          CHECK (window_end > window_start),
    used         INTEGER NOT NULL CHECK (used >= 0),
    -- In uptime.
    wanted_until INTEGER,
    -- 1 closed, 2 wanted, 4 recalled.
    standing     INTEGER NOT NULL CHECK (standing BETWEEN 0 AND 7),
    -- The number of the standing's last change.
    news         INTEGER NOT NULL,
    UNIQUE (offer_id, affiliate_id, kind, interval)
) STRICT;

CREATE INDEX caps_by_news ON caps (news);
CREATE INDEX caps_standing_until ON caps (window_end) WHERE standing <> 0;
CREATE INDEX caps_wanted_until ON caps (wanted_until) WHERE wanted_until IS NOT NULL;

-- The nodes, each start of one for itself, with the last answer they were given.
CREATE TABLE holders (
    holder_id      INTEGER PRIMARY KEY,
    node           TEXT    NOT NULL,
    epoch          INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,
    reply          TEXT,
    seen_at        INTEGER NOT NULL,
    seen_uptime_ms INTEGER,
    UNIQUE (node, epoch)
) STRICT;

CREATE INDEX holders_by_uptime ON holders (seen_uptime_ms);

-- Clicks that were granted and not yet settled. Those of a window that is not the cap's are carried: their holder may have
-- spent them after the next had begun by the ledger's clock.
CREATE TABLE holdings (
    cap_id       INTEGER NOT NULL REFERENCES caps ON DELETE CASCADE,
    holder_id    INTEGER NOT NULL REFERENCES holders ON DELETE CASCADE,
    window_start INTEGER NOT NULL,
    tokens       INTEGER NOT NULL CHECK (tokens > 0),
    -- The uptime at which the lease is surely over; without one, it never is.
    dead_after   INTEGER,
    PRIMARY KEY (cap_id, holder_id, window_start)
) STRICT, WITHOUT ROWID;

CREATE INDEX holdings_by_holder ON holdings (holder_id);

CREATE TABLE conversions (
    click_id       TEXT    NOT NULL,
    event          INTEGER NOT NULL,
    transaction_id TEXT    NOT NULL,
    offer_id       INTEGER NOT NULL,
    affiliate_id   INTEGER NOT NULL,
    smart_link_id  INTEGER NOT NULL,
    clicked_at     INTEGER NOT NULL,
    converted_at   INTEGER NOT NULL,
    amount         TEXT,
    PRIMARY KEY (click_id, event, transaction_id)
) STRICT, WITHOUT ROWID;

-- By the time that is in its id: mostly written at its end.
CREATE INDEX conversions_by_click ON conversions (clicked_at);
