-- The embedded CAKE's network, as the API accepted it. Columns are named as the API names them.
--
-- The checks repeat what the API checks before it writes: they are the second wall, for a mistake in the first.
-- No call for a link or an offer deletes it (an import that replaces everything does), and AUTOINCREMENT never gives an id twice: an old click stays explicable.

-- Names the state of the network; every change gives it a new name. Random, because a count would come again when a
-- backup is restored, and an edge would take the new state for one it knows.
CREATE TABLE network (
    revision TEXT NOT NULL
) STRICT;

INSERT INTO network (revision) VALUES (lower(hex(randomblob(16))));

CREATE TABLE smart_links (
    smart_link_id     INTEGER PRIMARY KEY AUTOINCREMENT CHECK (smart_link_id BETWEEN 1 AND 4294967295),
    smart_link_name   TEXT    NOT NULL CHECK (smart_link_name <> ''),
    affiliate_id      INTEGER NOT NULL CHECK (affiliate_id BETWEEN 1 AND 4294967295),
    smart_link_status TEXT    NOT NULL CHECK (smart_link_status IN ('active', 'inactive')),
    rotation_type     TEXT    NOT NULL CHECK (rotation_type IN ('weighted', 'even', 'priority')),
    cap_aware         INTEGER NOT NULL CHECK (cap_aware IN (0, 1)),
    fallback_url      TEXT             CHECK (fallback_url <> '')
) STRICT;

CREATE INDEX smart_links_by_affiliate ON smart_links (affiliate_id);

CREATE TABLE offers (
    offer_id        INTEGER PRIMARY KEY AUTOINCREMENT CHECK (offer_id BETWEEN 1 AND 4294967295),
    offer_name      TEXT    NOT NULL CHECK (offer_name <> ''),
    offer_status    TEXT    NOT NULL CHECK (offer_status IN ('active', 'inactive', 'paused', 'pending', 'expired')),
    offer_url       TEXT    NOT NULL CHECK (offer_url <> ''),
    payout          REAL             CHECK (payout >= 0),
    expiration_date TEXT             CHECK (expiration_date <> ''),
    -- What CAKE documents and routing does not need, as it was given: a JSON object.
    further         TEXT    NOT NULL CHECK (json_type(further) = 'object')
) STRICT;

CREATE INDEX offers_by_name ON offers (offer_name, offer_id);

CREATE TABLE offer_geo_targets (
    offer_id     INTEGER NOT NULL REFERENCES offers (offer_id),
    country_code TEXT    NOT NULL CHECK (length(country_code) = 2),
    action       TEXT    NOT NULL CHECK (action IN ('allow', 'block')),
    PRIMARY KEY (offer_id, country_code)
) STRICT, WITHOUT ROWID;

CREATE TABLE smart_link_offers (
    smart_link_id INTEGER NOT NULL REFERENCES smart_links (smart_link_id),
    offer_id      INTEGER NOT NULL REFERENCES offers (offer_id),
    offer_weight  INTEGER NOT NULL CHECK (offer_weight BETWEEN 0 AND 100),
    priority      INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 4294967295),
    PRIMARY KEY (smart_link_id, offer_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX smart_link_offers_by_offer ON smart_link_offers (offer_id);

CREATE TABLE routing_rules (
    rule_id       INTEGER PRIMARY KEY AUTOINCREMENT CHECK (rule_id BETWEEN 1 AND 4294967295),
    smart_link_id INTEGER NOT NULL REFERENCES smart_links (smart_link_id),
    offer_id      INTEGER NOT NULL REFERENCES offers (offer_id),
    priority      INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 4294967295),
    offer_weight  INTEGER NOT NULL CHECK (offer_weight BETWEEN 0 AND 100),
    conditions    TEXT    NOT NULL CHECK (json_type(conditions) = 'object')
) STRICT;

CREATE INDEX routing_rules_by_link ON routing_rules (smart_link_id);
CREATE INDEX routing_rules_by_offer ON routing_rules (offer_id);
