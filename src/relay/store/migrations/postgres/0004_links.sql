-- The key by which the others recognise a relay when they connect to it, to forward packets.
ALTER TABLE relays ADD COLUMN derp_key BYTEA CHECK (octet_length(derp_key) = 32);
