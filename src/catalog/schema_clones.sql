-- Tables of feature level 4: prefixes that are being cloned, or removed whole. Who they belong to is a row of `job` of kind 1.

CREATE TABLE IF NOT EXISTS cloning(clone INTEGER NOT NULL,       -- directories whose entries are still to be copied
  source INTEGER NOT NULL, target INTEGER NOT NULL,              -- the directory, and its copy
  next BLOB NOT NULL,                -- names before it were copied, or were not there when the clone began
  depth INTEGER NOT NULL, key_bytes INTEGER NOT NULL,            -- of the copy: directories on its path, and how long that is
  PRIMARY KEY(clone,source)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled(clone INTEGER NOT NULL, source INTEGER NOT NULL, name BLOB NOT NULL,
  PRIMARY KEY(clone,source,name)) WITHOUT ROWID;                 -- names that changed since: copied before that, or not there then
CREATE TABLE IF NOT EXISTS kept(clone INTEGER NOT NULL, ino INTEGER NOT NULL,  -- files of several names that changed since: as they were
  body INTEGER NOT NULL,             -- the node whose bytes they showed, of which this is a use; 0: none
  form INTEGER NOT NULL, attrs BLOB, PRIMARY KEY(clone,ino)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS detached(clone INTEGER NOT NULL, ino INTEGER NOT NULL, -- directories without a name: built, or to be erased
  PRIMARY KEY(clone,ino)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS detached_ino ON detached(ino);
