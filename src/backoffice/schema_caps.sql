-- Caps: how much an offer may take. How much it has taken is not here but in the ledger.

CREATE TABLE offer_caps (
    cap_id          INTEGER PRIMARY KEY AUTOINCREMENT CHECK (cap_id BETWEEN 1 AND 4294967295),
    offer_id        INTEGER NOT NULL REFERENCES offers (offer_id),
    -- Without it the cap counts everybody's traffic.
    affiliate_id    INTEGER          CHECK (affiliate_id BETWEEN 1 AND 4294967295),
    cap_type        TEXT    NOT NULL CHECK (cap_type IN ('click', 'conversion')),
    cap_interval    TEXT    NOT NULL CHECK (cap_interval IN ('lifetime', 'daily', 'weekly', 'monthly')),
    cap_amount      INTEGER NOT NULL CHECK (cap_amount BETWEEN 0 AND 9007199254740991),
    time_zone       TEXT    NOT NULL CHECK (time_zone <> ''),
    send_alert_only INTEGER NOT NULL CHECK (send_alert_only IN (0, 1))
) STRICT;

-- The name of a cap. No affiliate has the id 0.
CREATE UNIQUE INDEX offer_caps_by_name ON offer_caps (offer_id, ifnull(affiliate_id, 0), cap_type, cap_interval);

-- The state in which any cap was touched last. A cap touches no link: an offer may hang on half of them. Who asks what
-- has changed is told all caps, for they are few.
CREATE TABLE touched_caps (
    state INTEGER NOT NULL
) STRICT;

INSERT INTO touched_caps (state) VALUES (0);

CREATE TRIGGER offer_caps_inserted AFTER INSERT ON offer_caps BEGIN
    UPDATE touched_caps SET state = (SELECT state FROM next_state);
END;

CREATE TRIGGER offer_caps_deleted AFTER DELETE ON offer_caps BEGIN
    UPDATE touched_caps SET state = (SELECT state FROM next_state);
END;

CREATE TRIGGER offer_caps_updated AFTER UPDATE ON offer_caps BEGIN
    UPDATE touched_caps SET state = (SELECT state FROM next_state);
END;
