-- Tables of feature level 2: what a file system needs beside `opened`, `lock` and `hold`.

CREATE TABLE IF NOT EXISTS mounted(bucket INTEGER NOT NULL, session INTEGER NOT NULL,   -- who may have files of a bucket open
  seen INTEGER NOT NULL,             -- it holds what it has open of the orphans that lost their name up to this log index
  PRIMARY KEY(bucket,session)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orphan(ino INTEGER PRIMARY KEY, bucket INTEGER NOT NULL,     -- inodes without a name that may be open
  died INTEGER NOT NULL);            -- log index at which it lost the last name
CREATE INDEX IF NOT EXISTS orphan_bucket ON orphan(bucket,died);
CREATE TABLE IF NOT EXISTS answered(mount INTEGER NOT NULL, request INTEGER NOT NULL,   -- done for a mount's kernel, which may ask once more
  PRIMARY KEY(mount,request)) WITHOUT ROWID;
