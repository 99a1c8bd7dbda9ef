-- Version 3. Runs within the transaction that opens a file; sets the version itself.
PRAGMA user_version = 3;

-- The digest of all that a message came in, and whether it may not come again. What was claimed before this version may
-- not.
ALTER TABLE claims ADD COLUMN message BLOB NOT NULL DEFAULT x'';
ALTER TABLE claims ADD COLUMN finished INTEGER NOT NULL DEFAULT 1;

-- What nodes are about to record.
CREATE TABLE intents (
    namespace TEXT NOT NULL,
    id INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;
