BEGIN TRANSACTION;
CREATE TABLE annotations (
	annotation BIGINT NOT NULL,
	project INTEGER NOT NULL,
	marked INTEGER NOT NULL,
	seen INTEGER NOT NULL,
	open INTEGER NOT NULL,
	untaught INTEGER NOT NULL,
	due FLOAT NOT NULL,
	tries INTEGER NOT NULL,
	owner VARCHAR(128) NOT NULL,
	leased_until FLOAT NOT NULL,
	kind VARCHAR(16) NOT NULL,
	task BIGINT NOT NULL,
	version TEXT NOT NULL,
	annotator INTEGER,
	seconds FLOAT,
	created FLOAT NOT NULL,
	updated FLOAT NOT NULL,
	changes TEXT NOT NULL,
	reason TEXT NOT NULL,
	PRIMARY KEY (annotation)
);
INSERT INTO "annotations" VALUES(3,7,1,0,1,1,0.0,0,'',0.0,'',0,'',NULL,NULL,0.0,0.0,'[]','');
INSERT INTO "annotations" VALUES(4,7,1,1,0,0,0.0,0,'',0.0,'compared',104,'v1',4,1.5,10.0,11.0,'[{"label": "car", "accepted": 1, "corrected": 0, "deleted": 0, "relabelled": {"dog": 2}, "added": 0, "received": 0, "predicted_px": 0, "true_px": 9, "shared_px": 0, "band_shared_px": 0, "band_px": 0}]','');
CREATE TABLE failures (
	id INTEGER NOT NULL,
	job INTEGER NOT NULL,
	task BIGINT NOT NULL,
	reason TEXT NOT NULL,
	at FLOAT NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "failures" VALUES(1,1,9,'No image: “é”.',1000.0);
INSERT INTO "failures" VALUES(2,0,1099511627776,'Not an image.',1010.5);
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	project INTEGER NOT NULL,
	kind VARCHAR(16) NOT NULL,
	only VARCHAR(16) NOT NULL,
	"view" INTEGER,
	"limit" INTEGER,
	tasks TEXT,
	scope TEXT,
	state VARCHAR(16) NOT NULL,
	version TEXT NOT NULL,
	total INTEGER,
	done INTEGER NOT NULL,
	skipped INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	cursor BIGINT NOT NULL,
	worked_s FLOAT NOT NULL,
	reason TEXT NOT NULL,
	created FLOAT NOT NULL,
	updated FLOAT NOT NULL,
	started FLOAT,
	finished FLOAT,
	owner VARCHAR(128) NOT NULL,
	leased_until FLOAT NOT NULL
);
INSERT INTO "jobs" VALUES(1,7,'project','all',3,10,'[2, 5]','[2, 5]','failed','v1',4,2,1,1,5,0.0,'It cannot go on.',1000.0,1010.5,1000.0,1010.5,'host:1:aa',0.0);
INSERT INTO "jobs" VALUES(2,8,'new','unlabeled',NULL,NULL,'[4]',NULL,'queued','',NULL,0,0,0,0,0.0,'',1010.5,1010.5,NULL,NULL,'',0.0);
CREATE TABLE learned_versions (
	project INTEGER NOT NULL,
	model VARCHAR(64) NOT NULL,
	number INTEGER NOT NULL,
	origin VARCHAR(16) NOT NULL,
	digest VARCHAR(64) NOT NULL,
	better INTEGER NOT NULL,
	annotations INTEGER NOT NULL,
	pictures INTEGER NOT NULL,
	facts TEXT NOT NULL,
	created FLOAT NOT NULL,
	adaptation BLOB,
	PRIMARY KEY (project, model, number)
);
INSERT INTO "learned_versions" VALUES(7,'model',1,'step','digest',1,1,1,'{"text_iou": 0.4, "adapted_iou": 0.5, "text_ious": {"car": 0.4}, "adapted_ious": {"car": 0.5}, "thresholds": {"car": 0.3}, "adapted_thresholds": {}}',1010.5,X'C0000000000000007B22646972656374696F6E73223A7B226474797065223A22463332222C227368617065223A5B312C325D2C22646174615F6F666673657473223A5B302C385D7D2C226F666673657473223A7B226474797065223A22463332222C227368617065223A5B315D2C22646174615F6F666673657473223A5B382C31325D7D2C226661637473223A7B226474797065223A225538222C227368617065223A5B3135375D2C22646174615F6F666673657473223A5B31322C3136395D7D7D2020202020200000003F0000003F000000007B226B696E64223A202261646170746174696F6E222C2022666F726D6174223A20312C2022646967657374223A202232623464366330653036313739393964323838646134353233633936313132333661353634386562313464323262363764373830326236383534653633343463222C20226661637473223A207B226E616D6573223A205B22636172225D2C20227069637475726573223A20317D7D');
CREATE TABLE learners (
	project INTEGER NOT NULL,
	model VARCHAR(64) NOT NULL,
	live INTEGER,
	pinned INTEGER NOT NULL,
	changed INTEGER NOT NULL,
	asked INTEGER NOT NULL,
	trouble TEXT NOT NULL,
	due FLOAT NOT NULL,
	owner VARCHAR(128) NOT NULL,
	leased_until FLOAT NOT NULL,
	PRIMARY KEY (project, model)
);
INSERT INTO "learners" VALUES(7,'model',1,0,0,0,'',0.0,'',0.0);
CREATE TABLE lessons (
	annotation BIGINT NOT NULL,
	model VARCHAR(64) NOT NULL,
	picture INTEGER NOT NULL,
	project INTEGER NOT NULL,
	digest VARCHAR(64) NOT NULL,
	paint TEXT NOT NULL,
	learned FLOAT NOT NULL,
	example BLOB NOT NULL,
	PRIMARY KEY (annotation, model, picture)
);
INSERT INTO "lessons" VALUES(3,'model',0,7,'a','{}',1010.5,X'00016578616D706C65');
CREATE TABLE results (
	"key" VARCHAR(64) NOT NULL,
	task BIGINT NOT NULL,
	project INTEGER,
	version TEXT NOT NULL,
	state VARCHAR(16) NOT NULL,
	entry BLOB,
	bytes INTEGER NOT NULL,
	begun FLOAT NOT NULL,
	changed FLOAT NOT NULL,
	due FLOAT NOT NULL,
	owner VARCHAR(128) NOT NULL,
	leased_until FLOAT NOT NULL,
	PRIMARY KEY ("key")
);
INSERT INTO "results" VALUES('9a921aeca26bd960310b3e7379774726e6c224d0',1,7,'v1','ready',X'7801AB56CACD4F49CD892F4B2D2ACECCCF53B2522A3354D2512A4ECE2F4A55B232D033D5512A4A2D2ECD2951B28A368CAD05007F450F63',55,1010.5,1010.5,1020.0,'host:1:aa',0.0);
INSERT INTO "results" VALUES('3b20c928fef8304601ae7de7dfa7ce47baa27b9d',2,7,'v1','work',NULL,0,1010.5,1010.5,0.0,'host:1:aa',1040.5);
CREATE INDEX ix_jobs_project ON jobs (project);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_failures_job ON failures (job);
CREATE INDEX ix_results_project ON results (project);
CREATE INDEX ix_results_state ON results (state);
CREATE INDEX ix_results_changed ON results (changed);
CREATE INDEX ix_results_task ON results (task);
CREATE INDEX ix_annotations_untaught ON annotations (untaught);
CREATE INDEX ix_annotations_task ON annotations (task);
CREATE INDEX ix_annotations_project ON annotations (project);
CREATE INDEX ix_annotations_open ON annotations (open);
CREATE INDEX ix_lessons_project ON lessons (project);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',2);
COMMIT;
