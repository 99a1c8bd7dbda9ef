-- Version 1. Runs within the transaction that opens a file; sets the version itself.
PRAGMA application_id = 1953654134;
PRAGMA user_version = 1;

-- Settings of each fleet; under the namespace '' those of the file.
CREATE TABLE meta (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value ANY NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;

INSERT INTO meta VALUES ('', 'incarnation', lower(hex(randomblob(8))));

-- One writer at a time, and AUTOINCREMENT: numbers become visible in their order and never come back.
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    key BLOB NOT NULL,
    retain_until INTEGER NOT NULL,
    record BLOB NOT NULL
) STRICT;

CREATE INDEX changes_by_key ON changes (namespace, key);
CREATE INDEX changes_by_retention ON changes (namespace, retain_until);

-- What the nodes say of themselves (JSON), until when (milliseconds since the Unix epoch).
CREATE TABLE nodes (
    namespace TEXT NOT NULL,
    node TEXT NOT NULL,
    status TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (namespace, node)
) STRICT, WITHOUT ROWID;
