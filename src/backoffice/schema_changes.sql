-- What has changed since which state, so that an edge reads one link again and not a million.
--
-- States are numbered in the order in which they were committed; a state that is no longer listed is too old to be told
-- from. Triggers note what a change touches, whichever call makes it: what matters to routing, and nothing else.

CREATE TABLE states (
    state    INTEGER NOT NULL PRIMARY KEY,
    revision TEXT    NOT NULL UNIQUE
) STRICT;

INSERT INTO states (state, revision) SELECT 1, revision FROM network;

-- The state in which a link was touched last. A link that was deleted stays here.
CREATE TABLE touched_links (
    smart_link_id INTEGER NOT NULL PRIMARY KEY,
    state         INTEGER NOT NULL
) STRICT;

CREATE INDEX touched_links_by_state ON touched_links (state);

-- An offer touches every link that names it.
CREATE TABLE touched_offers (
    offer_id INTEGER NOT NULL PRIMARY KEY,
    state    INTEGER NOT NULL
) STRICT;

CREATE INDEX touched_offers_by_state ON touched_offers (state);

CREATE VIEW next_state (state) AS SELECT max(state) + 1 FROM states;

CREATE TRIGGER smart_links_inserted AFTER INSERT ON smart_links BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER smart_links_deleted AFTER DELETE ON smart_links BEGIN
    INSERT INTO touched_links SELECT OLD.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER smart_links_updated AFTER UPDATE ON smart_links
WHEN OLD.affiliate_id <> NEW.affiliate_id OR OLD.smart_link_status <> NEW.smart_link_status
    OR OLD.rotation_type <> NEW.rotation_type OR OLD.cap_aware <> NEW.cap_aware
    OR OLD.fallback_url IS NOT NEW.fallback_url
BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER smart_link_offers_inserted AFTER INSERT ON smart_link_offers BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER smart_link_offers_deleted AFTER DELETE ON smart_link_offers BEGIN
    INSERT INTO touched_links SELECT OLD.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER smart_link_offers_updated AFTER UPDATE ON smart_link_offers
WHEN OLD.offer_weight <> NEW.offer_weight OR OLD.priority <> NEW.priority
BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER routing_rules_inserted AFTER INSERT ON routing_rules BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER routing_rules_deleted AFTER DELETE ON routing_rules BEGIN
    INSERT INTO touched_links SELECT OLD.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER routing_rules_updated AFTER UPDATE ON routing_rules BEGIN
    -- An import may move a rule from one link to another.
    INSERT INTO touched_links SELECT OLD.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER offers_updated AFTER UPDATE ON offers
WHEN OLD.offer_status <> NEW.offer_status OR OLD.offer_url <> NEW.offer_url
    OR OLD.expiration_date IS NOT NEW.expiration_date
BEGIN
    INSERT INTO touched_offers SELECT NEW.offer_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER offer_geo_targets_inserted AFTER INSERT ON offer_geo_targets BEGIN
    INSERT INTO touched_offers SELECT NEW.offer_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER offer_geo_targets_deleted AFTER DELETE ON offer_geo_targets BEGIN
    INSERT INTO touched_offers SELECT OLD.offer_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;

CREATE TRIGGER offer_geo_targets_updated AFTER UPDATE ON offer_geo_targets
WHEN OLD.action <> NEW.action
BEGIN
    INSERT INTO touched_offers SELECT NEW.offer_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;
