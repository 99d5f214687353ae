-- What a trio of control planes shares: proposals with what came of them, roots, nodes, tokens; and
-- the functions that stand for what the two databases say differently.

-- The database's clock in milliseconds; one value a statement.
CREATE FUNCTION trilane_now() RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint $$;

-- Ends a leader's transaction: fails unless the row is the fence's own and has not run out. The lock
-- makes whoever takes the row wait until this transaction is over, and makes this one wait for a
-- take-over that is under way and then see it: nothing of a leader's is committed after another one
-- took the row. It is sent in one go with the COMMIT, so that a process which is stopped at this
-- moment leaves no lock on the row behind.
CREATE FUNCTION trilane_fence(asked_environment text, asked_holder bytea, asked_epoch bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM leader
        WHERE environment = asked_environment AND holder = asked_holder AND epoch = asked_epoch
        AND expires_ms > trilane_now() FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the leader''s row is not the asker''s' USING ERRCODE = 'TL001';
    END IF;
    RETURN true;
END $$;

-- The finished manifest body that replicas sign; one a version, never changed.
CREATE TABLE proposal (
    environment text COLLATE "C" NOT NULL,
    number      bigint NOT NULL,
    epoch       bigint NOT NULL,
    origin      bigint NOT NULL, -- the version whose content a rollback takes; 0: its own
    with_trust  bigint NOT NULL, -- 1: a rollback takes what only ever tightens, too
    body        bytea NOT NULL,
    body_digest bytea NOT NULL CHECK (length(body_digest) = 32),
    at_ms       bigint NOT NULL,
    PRIMARY KEY (environment, number),
    FOREIGN KEY (environment, number) REFERENCES version (environment, number)
);
ALTER TABLE proposal ALTER COLUMN body SET STORAGE EXTERNAL;

-- What came of a proposal: a signature, or the code of an error and a sentence.
CREATE TABLE cosignature (
    environment text COLLATE "C" NOT NULL,
    number      bigint NOT NULL,
    key_id      bytea NOT NULL CHECK (length(key_id) = 8),
    code        text COLLATE "C" NOT NULL, -- "OK": signed
    signature   bytea NOT NULL CHECK (length(signature) = 64),
    sentence    text COLLATE "C" NOT NULL,
    PRIMARY KEY (environment, number, key_id),
    FOREIGN KEY (environment, number) REFERENCES proposal (environment, number)
);

CREATE TABLE root (
    environment text COLLATE "C" NOT NULL,
    number      bigint NOT NULL CHECK (number > 0),
    container   bytea NOT NULL,
    PRIMARY KEY (environment, number)
);

CREATE TABLE node (
    environment  text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    state        text COLLATE "C" NOT NULL CHECK (state IN ('enrolled', 'removed')),
    status_key   bytea NOT NULL CHECK (length(status_key) = 32),
    labels       text COLLATE "C" NOT NULL,
    serial       text COLLATE "C" NOT NULL, -- of its present certificate; '': not from our CA
    not_after_ms bigint NOT NULL,
    enrolled_ms  bigint NOT NULL,
    PRIMARY KEY (environment, id)
);

-- Rights to join once. The token itself is kept nowhere.
CREATE TABLE join_token (
    environment text COLLATE "C" NOT NULL,
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    node        text COLLATE "C" NOT NULL,
    labels      text COLLATE "C" NOT NULL,
    author      text COLLATE "C" NOT NULL,
    expires_ms  bigint NOT NULL,
    used_ms     bigint NOT NULL, -- 0: not used
    PRIMARY KEY (environment, digest)
);
