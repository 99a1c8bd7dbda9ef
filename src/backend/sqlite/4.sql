-- Version 4. Runs within the transaction that opens a file; sets the version itself.
PRAGMA user_version = 4;

-- What the nodes say of themselves (JSON). Nodes judge each other's leases by their own clocks.
DROP TABLE nodes;

CREATE TABLE nodes (
    namespace TEXT NOT NULL,
    node TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (namespace, node)
) STRICT, WITHOUT ROWID;
