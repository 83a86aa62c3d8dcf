-- A link that is renamed is touched, too: a name routes nothing, but consoles keep names, and read those again that were touched.

DROP TRIGGER smart_links_updated;

CREATE TRIGGER smart_links_updated AFTER UPDATE ON smart_links
WHEN OLD.affiliate_id <> NEW.affiliate_id OR OLD.smart_link_status <> NEW.smart_link_status
    OR OLD.rotation_type <> NEW.rotation_type OR OLD.cap_aware <> NEW.cap_aware
    OR OLD.fallback_url IS NOT NEW.fallback_url OR OLD.smart_link_name IS NOT NEW.smart_link_name
BEGIN
    INSERT INTO touched_links SELECT NEW.smart_link_id, state FROM next_state WHERE true
    ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state;
END;
