-- Tables that databases of format 1 may lack, for it had none of them at first: made whenever one is opened for writing.

CREATE TABLE IF NOT EXISTS map(epoch INTEGER PRIMARY KEY, value BLOB NOT NULL);          -- the cluster's: at most one row
