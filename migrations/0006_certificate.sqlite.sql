-- What our CA gave out and is not over yet: when a node is removed, all of it is revoked, and not only
-- its present certificate.
CREATE TABLE certificate (
    environment  TEXT NOT NULL,
    serial       TEXT NOT NULL,
    node         TEXT NOT NULL,
    not_after_ms INTEGER NOT NULL,
    warrant      BLOB NOT NULL, -- a keyed digest: a replica gave it out
    removed_ms   INTEGER NOT NULL, -- 0: it was not
    removal      BLOB NOT NULL, -- a keyed digest: a replica was told to remove it
    PRIMARY KEY (environment, serial)
) STRICT, WITHOUT ROWID;
CREATE INDEX certificate_node ON certificate (environment, node);
CREATE INDEX certificate_removed ON certificate (environment, removed_ms);
CREATE INDEX certificate_end ON certificate (environment, not_after_ms);
