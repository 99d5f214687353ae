-- What our CA gave out and is not over yet: when a node is removed, all of it is revoked, and not only
-- its present certificate.
CREATE TABLE certificate (
    environment  text COLLATE "C" NOT NULL,
    serial       text COLLATE "C" NOT NULL,
    node         text COLLATE "C" NOT NULL,
    not_after_ms bigint NOT NULL,
    warrant      bytea NOT NULL, -- a keyed digest: a replica gave it out
    removed_ms   bigint NOT NULL, -- 0: it was not
    removal      bytea NOT NULL, -- a keyed digest: a replica was told to remove it
    PRIMARY KEY (environment, serial)
);
CREATE INDEX certificate_node ON certificate (environment, node);
CREATE INDEX certificate_removed ON certificate (environment, removed_ms);
CREATE INDEX certificate_end ON certificate (environment, not_after_ms);
