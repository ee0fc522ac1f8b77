-- The table of feature level 4 for what others keep here: users, tokens. What `kind` is: `RecordKind`.

CREATE TABLE record(kind INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(kind,name)) WITHOUT ROWID;
