-- Where nodes reach a relay, who are told of it while it runs. Relays of an older program say nothing.
ALTER TABLE relays ADD COLUMN base_url TEXT;
