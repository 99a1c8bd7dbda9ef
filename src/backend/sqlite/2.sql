-- Version 2. Runs within the transaction that opens a file; sets the version itself.
PRAGMA user_version = 2;

-- Digests of messages that count once, and until when they must be remembered (Unix seconds).
CREATE TABLE claims (
    namespace TEXT NOT NULL,
    digest BLOB NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX claims_by_time ON claims (namespace, until);
