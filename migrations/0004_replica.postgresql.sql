-- Which keys each replica signs with, as it said last: for people. A key that is replaced leaves its
-- row for a week.
CREATE TABLE replica (
    environment  text COLLATE "C" NOT NULL,
    manifest_key bytea NOT NULL CHECK (length(manifest_key) = 32), -- Ed25519, public
    head_key     bytea NOT NULL CHECK (length(head_key) = 32),
    name         text NOT NULL,
    seen_ms      bigint NOT NULL,
    PRIMARY KEY (environment, manifest_key, head_key)
);
