-- The store of the control plane. Forward only: a released file is never edited.
-- Times are milliseconds since the epoch by the database's clock; digests are raw bytes.

-- Who leads an environment. Taken and renewed by one conditional update.
CREATE TABLE leader (
    environment TEXT NOT NULL PRIMARY KEY,
    epoch       INTEGER NOT NULL CHECK (epoch > 0),
    holder      BLOB NOT NULL CHECK (length(holder) = 16),
    name        TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL
) STRICT;

-- Every number that was ever handed out; a row is never deleted, so no number comes twice.
CREATE TABLE version (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL CHECK (number > 0),
    epoch       INTEGER NOT NULL,
    handed_ms   INTEGER NOT NULL,
    PRIMARY KEY (environment, number)
) STRICT, WITHOUT ROWID;

-- Bytes of source files, once for all versions that have them.
CREATE TABLE source (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    bytes  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE version_source (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    name        TEXT NOT NULL,
    digest      BLOB NOT NULL REFERENCES source (digest),
    PRIMARY KEY (environment, number, name),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX version_source_digest ON version_source (digest);

-- The finished manifest body that replicas sign; one a version, never changed.
CREATE TABLE proposal (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    body        BLOB NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (environment, number),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
) STRICT;

-- The journal: a row here is a publication.
CREATE TABLE journal (
    environment     TEXT NOT NULL,
    number          INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    origin          INTEGER NOT NULL, -- the version whose content a rollback took; 0: its own
    manifest        BLOB NOT NULL,    -- the signed container
    manifest_digest BLOB NOT NULL CHECK (length(manifest_digest) = 32),
    content_digest  BLOB NOT NULL CHECK (length(content_digest) = 32),
    raw_size        INTEGER NOT NULL,
    author          TEXT NOT NULL,
    message         TEXT NOT NULL,
    created_ms      INTEGER NOT NULL,
    PRIMARY KEY (environment, number),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
) STRICT;

-- Stored bytes of chunks by the digest of their raw bytes: the bucket is rebuilt from these.
CREATE TABLE chunk (
    raw_digest    BLOB NOT NULL PRIMARY KEY CHECK (length(raw_digest) = 32),
    stored_digest BLOB NOT NULL CHECK (length(stored_digest) = 16),
    raw_size      INTEGER NOT NULL,
    stored        BLOB NOT NULL
) STRICT;

CREATE TABLE journal_chunk (
    environment TEXT NOT NULL,
    number      INTEGER NOT NULL,
    position    INTEGER NOT NULL, -- in the order of the manifest's streams
    raw_digest  BLOB NOT NULL REFERENCES chunk (raw_digest),
    PRIMARY KEY (environment, number, position),
    FOREIGN KEY (environment, number) REFERENCES journal (environment, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX journal_chunk_digest ON journal_chunk (raw_digest);

CREATE TABLE audit (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    environment TEXT NOT NULL,
    at_ms       INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    object      TEXT NOT NULL,
    outcome     TEXT NOT NULL
) STRICT;
