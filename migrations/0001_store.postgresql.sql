-- The store of the control plane. Forward only: a released file is never edited.
-- Times are milliseconds since the epoch by the database's clock; digests are raw bytes. Text is
-- ordered by its bytes (COLLATE "C"), as everywhere else in the program. Bytes are kept as they are
-- (STORAGE EXTERNAL): most are compressed already.

-- Who leads an environment. Taken and renewed by one conditional update.
CREATE TABLE leader (
    environment text COLLATE "C" NOT NULL PRIMARY KEY,
    epoch       bigint NOT NULL CHECK (epoch > 0),
    holder      bytea NOT NULL CHECK (length(holder) = 16),
    name        text COLLATE "C" NOT NULL,
    address     text COLLATE "C" NOT NULL DEFAULT '', -- of the holder's API
    expires_ms  bigint NOT NULL
);

-- Every number that was ever handed out; a row is never deleted, so no number comes twice.
CREATE TABLE version (
    environment    text COLLATE "C" NOT NULL,
    number         bigint NOT NULL CHECK (number > 0),
    epoch          bigint NOT NULL,
    handed_ms      bigint NOT NULL,
    -- Digest of names and bytes of the version's sources; empty: it has none.
    sources_digest bytea NOT NULL DEFAULT '',
    PRIMARY KEY (environment, number)
);

-- Bytes of source files, once for all versions that have them.
CREATE TABLE source (
    digest bytea NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    bytes  bytea NOT NULL
);

-- What a version names is written as what changed since the version before: a row says from which
-- version to which a file is named; 9223372036854775807 stands for "still".
CREATE TABLE source_use (
    environment  text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    first_number bigint NOT NULL,
    last_number  bigint NOT NULL,
    digest       bytea NOT NULL REFERENCES source (digest),
    PRIMARY KEY (environment, name, first_number),
    FOREIGN KEY (environment, first_number) REFERENCES version (environment, number)
);
CREATE INDEX source_use_last ON source_use (environment, last_number);
CREATE INDEX source_use_digest ON source_use (digest);

-- The journal: a row here is a publication.
CREATE TABLE journal (
    environment     text COLLATE "C" NOT NULL,
    number          bigint NOT NULL,
    epoch           bigint NOT NULL,
    origin          bigint NOT NULL, -- the version whose content a rollback took; 0: its own
    manifest        bytea NOT NULL,  -- the signed container
    manifest_digest bytea NOT NULL CHECK (length(manifest_digest) = 32),
    content_digest  bytea NOT NULL CHECK (length(content_digest) = 32),
    raw_size        bigint NOT NULL,
    author          text COLLATE "C" NOT NULL,
    message         text COLLATE "C" NOT NULL,
    created_ms      bigint NOT NULL,
    -- Raw digests of its chunks in the order of the manifest's streams, 32 bytes each.
    chunks          bytea NOT NULL DEFAULT '',
    request         text COLLATE "C" NOT NULL DEFAULT '', -- the sender's own id of it
    signers         text COLLATE "C" NOT NULL DEFAULT '', -- names of the keys under the manifest
    PRIMARY KEY (environment, number),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
);
CREATE UNIQUE INDEX journal_request ON journal (environment, request) WHERE request <> '';
ALTER TABLE journal ALTER COLUMN manifest SET STORAGE EXTERNAL;
ALTER TABLE journal ALTER COLUMN chunks SET STORAGE EXTERNAL;

-- Stored bytes of chunks by the digest of their raw bytes: the bucket is rebuilt from these.
CREATE TABLE chunk (
    raw_digest    bytea NOT NULL PRIMARY KEY CHECK (length(raw_digest) = 32),
    stored_digest bytea NOT NULL CHECK (length(stored_digest) = 16),
    raw_size      bigint NOT NULL,
    stored        bytea NOT NULL
);
ALTER TABLE chunk ALTER COLUMN stored SET STORAGE EXTERNAL;

-- As source_use.
CREATE TABLE chunk_use (
    raw_digest   bytea NOT NULL REFERENCES chunk (raw_digest),
    environment  text COLLATE "C" NOT NULL,
    first_number bigint NOT NULL,
    last_number  bigint NOT NULL,
    PRIMARY KEY (raw_digest, environment, first_number)
);
CREATE INDEX chunk_use_last ON chunk_use (environment, last_number);

-- The newest publication, and the newest and the oldest version with sources. Whoever writes either locks the row:
-- so what changed is reckoned against what is there in the end.
CREATE TABLE newest (
    environment text COLLATE "C" NOT NULL PRIMARY KEY,
    published   bigint NOT NULL, -- 0: none
    sources     bigint NOT NULL,
    oldest      bigint NOT NULL -- what versions below it named may be gone
);

-- The mark is random, so that a line that is written again after a broken connection stands there
-- once.
CREATE TABLE audit (
    seq         bigint NOT NULL PRIMARY KEY,
    environment text COLLATE "C" NOT NULL,
    at_ms       bigint NOT NULL,
    actor       text COLLATE "C" NOT NULL,
    action      text COLLATE "C" NOT NULL,
    object      text COLLATE "C" NOT NULL,
    outcome     text COLLATE "C" NOT NULL,
    mark        bytea NOT NULL UNIQUE
);
