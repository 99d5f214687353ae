-- What a trio of control planes shares: proposals with what came of them, roots, nodes, tokens. And
-- what a version names is written as what changed since the version before: a row says from which
-- version to which a file or a chunk is named; 9223372036854775807 stands for "still".

ALTER TABLE leader ADD COLUMN address TEXT NOT NULL DEFAULT ''; -- of the holder's API

-- Digest of names and bytes of the version's sources; empty: it has none.
ALTER TABLE version ADD COLUMN sources_digest BLOB NOT NULL DEFAULT x'';
UPDATE version SET sources_digest = x'00' WHERE EXISTS (
    SELECT 1 FROM version_source v
    WHERE v.environment = version.environment AND v.number = version.number);

CREATE TABLE source_use (
    environment  TEXT NOT NULL,
    name         TEXT NOT NULL,
    first_number INTEGER NOT NULL,
    last_number  INTEGER NOT NULL,
    digest       BLOB NOT NULL REFERENCES source (digest),
    PRIMARY KEY (environment, name, first_number),
    FOREIGN KEY (environment, first_number) REFERENCES version (environment, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX source_use_last ON source_use (environment, last_number);
CREATE INDEX source_use_digest ON source_use (digest);
INSERT INTO source_use (environment, name, first_number, last_number, digest)
    SELECT environment, name, number, number, digest FROM version_source;
DROP TABLE version_source;

-- Raw digests of a publication's chunks in the order of the manifest's streams, 32 bytes each.
ALTER TABLE journal ADD COLUMN chunks BLOB NOT NULL DEFAULT x'';
UPDATE journal SET chunks = coalesce((SELECT CAST(group_concat(raw_digest, '') AS BLOB) FROM (
    SELECT raw_digest FROM journal_chunk c
    WHERE c.environment = journal.environment AND c.number = journal.number
    ORDER BY position)), x'');
-- The sender's own id of a publication.
ALTER TABLE journal ADD COLUMN request TEXT NOT NULL DEFAULT '';
-- Names of the keys under its manifest.
ALTER TABLE journal ADD COLUMN signers TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX journal_request ON journal (environment, request) WHERE request <> '';

CREATE TABLE chunk_use (
    raw_digest   BLOB NOT NULL REFERENCES chunk (raw_digest),
    environment  TEXT NOT NULL,
    first_number INTEGER NOT NULL,
    last_number  INTEGER NOT NULL,
    PRIMARY KEY (raw_digest, environment, first_number)
) STRICT, WITHOUT ROWID;
CREATE INDEX chunk_use_last ON chunk_use (environment, last_number);
INSERT INTO chunk_use (raw_digest, environment, first_number, last_number)
    SELECT DISTINCT c.raw_digest, c.environment, c.number,
        CASE WHEN c.number = (SELECT max(number) FROM journal j WHERE j.environment = c.environment)
             THEN 9223372036854775807 ELSE c.number END
    FROM journal_chunk c;
DROP TABLE journal_chunk;

-- The newest publication, and the newest and the oldest version with sources. Whoever writes either locks the row:
-- so what changed is reckoned against what is there in the end.
CREATE TABLE newest (
    environment TEXT NOT NULL PRIMARY KEY,
    published   INTEGER NOT NULL, -- 0: none
    sources     INTEGER NOT NULL,
    oldest      INTEGER NOT NULL -- what versions below it named may be gone
) STRICT;
INSERT INTO newest (environment, published, sources, oldest)
    SELECT environment,
        coalesce((SELECT max(j.number) FROM journal j WHERE j.environment = e.environment), 0),
        coalesce((SELECT max(v.number) FROM version v
                  WHERE v.environment = e.environment AND v.sources_digest <> x''), 0), 0
    FROM (SELECT DISTINCT environment FROM version) e;

-- The finished manifest body that replicas sign; one a version, never changed.
DROP TABLE proposal;
CREATE TABLE proposal (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    origin      INTEGER NOT NULL, -- the version whose content a rollback takes; 0: its own
    with_trust  INTEGER NOT NULL, -- 1: a rollback takes what only ever tightens, too
    body        BLOB NOT NULL,
    body_digest BLOB NOT NULL CHECK (length(body_digest) = 32),
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (environment, number),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
) STRICT;

-- What came of a proposal: a signature, or the code of an error and a sentence.
CREATE TABLE cosignature (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    key_id      BLOB NOT NULL CHECK (length(key_id) = 8),
    code        TEXT NOT NULL, -- "OK": signed
    signature   BLOB NOT NULL CHECK (length(signature) = 64),
    sentence    TEXT NOT NULL,
    PRIMARY KEY (environment, number, key_id),
    FOREIGN KEY (environment, number) REFERENCES proposal (environment, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE root (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL CHECK (number > 0),
    container   BLOB NOT NULL,
    PRIMARY KEY (environment, number)
) STRICT;

CREATE TABLE node (
    environment  TEXT NOT NULL,
    id           TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('enrolled', 'removed')),
    status_key   BLOB NOT NULL CHECK (length(status_key) = 32),
    labels       TEXT NOT NULL,
    serial       TEXT NOT NULL, -- of its present certificate; '': not from our CA
    not_after_ms INTEGER NOT NULL,
    enrolled_ms  INTEGER NOT NULL,
    PRIMARY KEY (environment, id)
) STRICT, WITHOUT ROWID;

-- Rights to join once. The token itself is kept nowhere.
CREATE TABLE join_token (
    environment TEXT NOT NULL,
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    node        TEXT NOT NULL,
    labels      TEXT NOT NULL,
    author      TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL,
    used_ms     INTEGER NOT NULL, -- 0: not used
    PRIMARY KEY (environment, digest)
) STRICT, WITHOUT ROWID;

-- Random, so that a line that is written again after a broken connection stands there once.
ALTER TABLE audit ADD COLUMN mark BLOB NOT NULL DEFAULT x'';
UPDATE audit SET mark = randomblob(16);
CREATE UNIQUE INDEX audit_mark ON audit (mark);
