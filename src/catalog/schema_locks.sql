-- The table of feature level 3: who has locked what of files. (That of format 1 was never used.)

DROP TABLE IF EXISTS lock;
CREATE TABLE lock(ino INTEGER NOT NULL, mount INTEGER NOT NULL, owner INTEGER NOT NULL, -- of one owner: ranges that do not overlap
  start INTEGER NOT NULL, end INTEGER NOT NULL,      -- half-open
  exclusive INTEGER NOT NULL, opened INTEGER NOT NULL, pid INTEGER NOT NULL, bucket INTEGER NOT NULL, session INTEGER NOT NULL,
  PRIMARY KEY(ino,mount,owner,start)) WITHOUT ROWID;
