-- A database that version 0.2.0 has made: a project with one of everything that is stored.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0200');
CREATE TABLE annotation_sums (
	project INTEGER NOT NULL, 
	grouping VARCHAR(8) NOT NULL, 
	name TEXT NOT NULL, 
	sums TEXT NOT NULL, 
	PRIMARY KEY (project, grouping, name)
);
INSERT INTO "annotation_sums" VALUES(7,'all','','{"kinds":{"broken":1,"scratch":1,"compared":1},"total":[3,2,3,103079215104,1,1,0,1,0,130,180,110,{},{"75":1,"90":1},{"90":1}],"labels":{"roof":[2,2,2,34359738368,0,1,0,1,0,80,130,60,{},{"75":1},{}],"tree":[1,1,1,68719476736,1,0,0,0,0,50,50,50,{},{"90":1},{"90":1}]}}');
INSERT INTO "annotation_sums" VALUES(7,'day','2025-11-29','{"kinds":{"broken":1,"scratch":1,"compared":1},"total":[3,2,3,103079215104,1,1,0,1,0,130,180,110,{},{"75":1,"90":1},{"90":1}],"labels":{"roof":[2,2,2,34359738368,0,1,0,1,0,80,130,60,{},{"75":1},{}],"tree":[1,1,1,68719476736,1,0,0,0,0,50,50,50,{},{"90":1},{"90":1}]}}');
INSERT INTO "annotation_sums" VALUES(7,'week','2025-11-24','{"kinds":{"broken":1,"scratch":1,"compared":1},"total":[3,2,3,103079215104,1,1,0,1,0,130,180,110,{},{"75":1,"90":1},{"90":1}],"labels":{"roof":[2,2,2,34359738368,0,1,0,1,0,80,130,60,{},{"75":1},{}],"tree":[1,1,1,68719476736,1,0,0,0,0,50,50,50,{},{"90":1},{"90":1}]}}');
INSERT INTO "annotation_sums" VALUES(7,'version','demo-clearclip-1','{"kinds":{"compared":1},"total":[2,1,2,103079215104,1,1,0,0,0,130,150,110,{},{"75":1,"90":1},{"90":1}],"labels":{"roof":[1,1,1,34359738368,0,1,0,0,0,80,100,60,{},{"75":1},{}],"tree":[1,1,1,68719476736,1,0,0,0,0,50,50,50,{},{"90":1},{"90":1}]}}');
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
INSERT INTO "annotations" VALUES(12,7,1,1,0,0,0.0,0,'',0.0,'compared',3,'demo-clearclip-1',5,40.0,1764400000.0,1764400100.0,'[{"label":"roof","corrected":1,"predicted_px":80,"true_px":100,"shared_px":60,"score":0.75},{"label":"tree","accepted":1,"predicted_px":50,"true_px":50,"shared_px":50,"score":0.9}]','');
INSERT INTO "annotations" VALUES(13,7,1,1,0,0,0.0,0,'',0.0,'scratch',4,'',6,20.0,1764410000.0,1764410000.0,'[{"label":"roof","added":1,"true_px":30}]','');
INSERT INTO "annotations" VALUES(14,7,1,1,0,0,0.0,0,'',0.0,'broken',5,'',NULL,NULL,1764420000.0,1764420000.0,'[]','A region has no label.');
INSERT INTO "annotations" VALUES(15,7,1,0,1,1,0.0,0,'',0.0,'',0,'',NULL,NULL,0.0,0.0,'[]','');
CREATE TABLE confirmed_annotations (
	project INTEGER NOT NULL, 
	annotation BIGINT NOT NULL, 
	updated FLOAT NOT NULL, 
	PRIMARY KEY (project, annotation)
);
INSERT INTO "confirmed_annotations" VALUES(7,13,5.25);
CREATE TABLE failures (
	id INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	task BIGINT NOT NULL, 
	reason TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	project INTEGER, 
	PRIMARY KEY (id)
);
INSERT INTO "failures" VALUES(1,0,9,'The picture is gone.',1764500000.0,NULL);
CREATE TABLE job_tasks (
	job INTEGER NOT NULL, 
	tasks TEXT NOT NULL, 
	PRIMARY KEY (job)
);
CREATE TABLE jobs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	project INTEGER NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	only VARCHAR(16) NOT NULL, 
	"view" INTEGER, 
	"limit" INTEGER, 
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
	withdraws INTEGER, 
	owner VARCHAR(128) NOT NULL, 
	leased_until FLOAT NOT NULL
);
INSERT INTO "jobs" VALUES(1,7,'project','unlabeled',NULL,NULL,'running','',9,2,0,0,0,0.0,'',1764500000.0,1764500000.0,1764500000.0,NULL,NULL,'worker',1764500030.0);
CREATE TABLE learned_versions (
	project INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	adaptation BLOB, 
	pictures TEXT NOT NULL, 
	PRIMARY KEY (project, model, number)
);
INSERT INTO "learned_versions" VALUES(7,'model-of-0.2.0',1,'{"annotations":1,"digest":"1b214f0cd0fa909a47c31676decfd0ad599b09804d6aee9e88326a0086fec4ad","better":true,"text_iou":0.4,"adapted_iou":0.5,"text_ious":{"roof":0.4,"tree":0.4},"adapted_ious":{"roof":0.6,"tree":0.3},"shown":{"roof":1},"refused":{"tree":"too few"},"created":1764500000.0,"number":1}',X'C0000000000000007B22646972656374696F6E73223A7B226474797065223A22463332222C227368617065223A5B312C345D2C22646174615F6F666673657473223A5B302C31365D7D2C226F666673657473223A7B226474797065223A22463332222C227368617065223A5B315D2C22646174615F6F666673657473223A5B31362C32305D7D2C226661637473223A7B226474797065223A225538222C227368617065223A5B38305D2C22646174615F6F666673657473223A5B32302C3130305D7D7D20202020200000803F0000803F0000803F0000803F000000007B226B696E64223A202261646170746174696F6E222C2022666F726D6174223A20322C20226661637473223A207B226E616D6573223A205B22726F6F66225D2C20227069637475726573223A20317D7D','{"pictures":[{"task":3,"annotated":"data:image/jpeg;base64,AA","words":"data:image/jpeg;base64,AA","adapted":"data:image/jpeg;base64,AA","text_iou":0.4,"adapted_iou":0.5}],"colours":{"roof":"#ff0000"}}');
CREATE TABLE learning_states (
	project INTEGER NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	live INTEGER, 
	newest INTEGER NOT NULL, 
	decided INTEGER NOT NULL, 
	pinned INTEGER NOT NULL, 
	adapt VARCHAR(8), 
	as_words TEXT NOT NULL, 
	changed INTEGER NOT NULL, 
	asked INTEGER NOT NULL, 
	trouble TEXT NOT NULL, 
	due FLOAT NOT NULL, 
	owner VARCHAR(128) NOT NULL, 
	leased_until FLOAT NOT NULL, 
	PRIMARY KEY (project, model)
);
INSERT INTO "learning_states" VALUES(7,'model-of-0.2.0',1,1,0,0,'auto','[]',0,0,'',0.0,'',0.0);
CREATE TABLE polls (
	project INTEGER NOT NULL, 
	since FLOAT NOT NULL, 
	noted FLOAT NOT NULL, 
	walked FLOAT NOT NULL, 
	polled FLOAT NOT NULL, 
	due FLOAT NOT NULL, 
	tasks INTEGER NOT NULL, 
	trouble TEXT NOT NULL, 
	owner VARCHAR(128) NOT NULL, 
	leased_until FLOAT NOT NULL, 
	PRIMARY KEY (project)
);
INSERT INTO "polls" VALUES(7,0.0,0.0,0.0,0.0,1764500600.0,0,'','',0.0);
CREATE TABLE runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(32) NOT NULL, 
	project INTEGER NOT NULL, 
	asked TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	done INTEGER NOT NULL, 
	total INTEGER, 
	reason TEXT NOT NULL, 
	report TEXT, 
	created FLOAT NOT NULL, 
	finished FLOAT, 
	attempts INTEGER NOT NULL, 
	owner VARCHAR(128) NOT NULL, 
	leased_until FLOAT NOT NULL
);
INSERT INTO "runs" VALUES(1,'label-errors',7,'{}','done',0,NULL,'','{"annotations":13,"pictures":9,"examples":30,"suspicions":[{"task":3,"annotation":12,"updated":5.25,"item_index":null,"kind":"label","label":"roof","other":"tree","sentence":"Painted “roof”.","preview":"data:image/jpeg;base64,AA","suggestion":"data:b","colours":{}},{"task":4,"annotation":13,"updated":5.25,"item_index":null,"kind":"label","label":"roof","other":"tree","sentence":"Painted “roof”.","preview":"data:image/jpeg;base64,AA","suggestion":"data:b","colours":{}}],"left_out":{"9":"roof"},"left_out_count":7}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(2,'agreement',7,'{}','done',0,NULL,'','{"tasks":40,"pictures":41,"annotations":85,"disputed":0.0312,"labels":[{"label":"roof","pictures":9,"iou":0.75,"disputed":0.01},{"label":"tree","pictures":10,"iou":0.25,"disputed":0.02}],"confusions":[{"label":"roof","other":"tree","share":0.125},{"label":"tree","other":"","share":0.0625}],"annotators":[{"annotator":5,"name":"roof","pictures":40,"iou":0.8125},{"annotator":6,"name":"","pictures":2,"iou":0.5}],"disputes":[{"task":3,"item_index":null,"people":2,"disputed":0.125,"labels":[{"label":"roof","iou":0.5,"disputed":0.125}],"picture":"data:image/jpeg;base64,AA"},{"task":4,"item_index":1,"people":3,"disputed":0.0625,"labels":[],"picture":""}],"dispute_count":400,"left_out":{"9":"roof"},"left_out_count":7}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(3,'next-tasks',7,'{"count":5}','done',0,NULL,'','{"asked":2,"tasks":[{"task":4,"picture":"data:image/jpeg;base64,AA"},{"task":3,"picture":"data:image/jpeg;base64,AA"}],"unlabeled":4321,"compared":12,"near_duplicates":9,"examples":5,"left_out":{"9":"roof"},"left_out_count":7}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(4,'words',7,'{"label":"tree","wordings":["fir","oak, pine"],"pictures":8}','done',0,NULL,'','{"label":"tree","labels":["sky","tree"],"config":"<View><Image name=\"image\" value=\"$image\"/><BrushLabels name=\"mask\" toName=\"image\"><Label value=\"sky\"/><Label value=\"grass\"/><Label value=\"tree\"/><Label value=\"house\"/></BrushLabels></View>","is_corrected":true,"pictures":1,"trials":[{"row":1,"words":["fir"],"line":"<Label value=\"tree\" predicted_values=\"fir\"/>","iou":0.8,"saved_paint":0.8,"share":0.25,"pictures":[{"task":3,"iou":0.75,"preview":"data:image/jpeg;base64,AA"}]},{"row":0,"words":["tree"],"line":"<Label value=\"tree\"/>","iou":0.8,"saved_paint":0.8,"share":0.25,"pictures":[{"task":3,"iou":0.75,"preview":"data:image/jpeg;base64,AA"}]},{"row":2,"words":["roof"],"line":"<Label value=\"tree\" hint=\"roof\"/>","iou":0.8,"saved_paint":0.8,"share":0.25,"pictures":[{"task":3,"iou":0.75,"preview":"data:image/jpeg;base64,AA"}]}],"advice":[],"shares":{},"left_out":{"4":"roof"},"left_out_count":1}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(5,'datasets',7,'{"view":null,"formats":["coco"],"pictures":true,"annotations":"preferred","overlap":"label-order","split":"80/20","near_duplicates":null,"with_predictions":false,"background":"","merge_regions":"","split_by":"","renamed":{}}','done',0,NULL,'','{"pictures":2,"parts":{"train":2,"val":0},"regions":5,"unlabelled":1,"notes":[],"left_out":{"41":"roof"},"left_out_count":7,"size_bytes":3145728}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(6,'words',7,'{"label":"","wordings":[],"pictures":8}','done',0,NULL,'','{"label":"","labels":["sky","tree"],"config":"<View><Image name=\"image\" value=\"$image\"/><BrushLabels name=\"mask\" toName=\"image\"><Label value=\"sky\"/><Label value=\"grass\"/><Label value=\"tree\"/><Label value=\"house\"/></BrushLabels></View>","is_corrected":false,"pictures":2,"trials":[],"advice":[{"label":"tree","finding":"“roof” means little.","remedy":"Try a more common word."}],"shares":{"sky":0.25,"tree":0.5},"left_out":{},"left_out_count":0}',1764490000.0,1764500000.0,0,'',0.0);
INSERT INTO "runs" VALUES(7,'label-errors',7,'{}','queued',0,NULL,'',NULL,1764500000.0,NULL,0,'',0.0);
CREATE TABLE training_examples (
	annotation BIGINT NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	picture INTEGER NOT NULL, 
	project INTEGER NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	example BLOB NOT NULL, 
	PRIMARY KEY (annotation, model, picture)
);
INSERT INTO "training_examples" VALUES(12,'model-of-0.2.0',0,7,'f053d00d2b316c2179a975f0948ed65bfdaa93e57b5885198c6fd7ace5f23c3b',X'B8010000000000007B2277656967687473223A7B226474797065223A22463332222C227368617065223A5B325D2C22646174615F6F666673657473223A5B302C385D7D2C22636C73223A7B226474797065223A22463136222C227368617065223A5B345D2C22646174615F6F666673657473223A5B382C31365D7D2C226665617475726573223A7B226474797065223A22463136222C227368617065223A5B322C345D2C22646174615F6F666673657473223A5B31362C33325D7D2C226C61796F7574223A7B226474797065223A22463136222C227368617065223A5B31362C345D2C22646174615F6F666673657473223A5B33322C3136305D7D2C226C6162656C73223A7B226474797065223A22493136222C227368617065223A5B325D2C22646174615F6F666673657473223A5B3136302C3136345D7D2C226661637473223A7B226474797065223A225538222C227368617065223A5B3133385D2C22646174615F6F666673657473223A5B3136342C3330325D7D2C2272656D6F766564223A7B226474797065223A22424F4F4C222C227368617065223A5B322C305D2C22646174615F6F666673657473223A5B3330322C3330325D7D7D2020202020200000803E0000803E043CF1B84A3F48BD06303AB02039B72E49B8C935373D943BA1B910BDFCB84A29A6C000B3FCBCDCB95BB810B596362C3C1DB0773D52B9A0353A3B042EF3B960BB53B70C330ABCB2B218B15438DE32B0353BB926B0463AF93D09BD0E3E623D403A3B3406B5D53DD73F353F433DB835D5BC909C403927BD5236E1369139BDBC4BB9FCB6AEBCF53EEFB7433523B4553E483D113968C0A92A7839000000007B226B696E64223A20226578616D706C65222C2022666F726D6174223A20322C20226661637473223A207B226B6E6F776E223A205B22726F6F66222C202274726565225D2C20226E616D6573223A205B22726F6F66225D2C202270696374757265223A202270222C2022616E6E6F7461746F72223A202235222C202272656D6F766564223A205B5D7D7D');
CREATE INDEX ix_annotations_kind_version ON annotations (project, kind, version, created);
CREATE INDEX ix_annotations_updated ON annotations (project, updated, kind, task);
CREATE INDEX ix_annotations_open_due ON annotations (open, due, annotation DESC);
CREATE INDEX ix_annotations_open_project ON annotations (open, project, due, annotation DESC);
CREATE INDEX ix_annotations_task_project ON annotations (task, project, leased_until);
CREATE INDEX ix_annotations_untaught_due ON annotations (untaught, due, annotation DESC);
CREATE INDEX ix_annotations_untaught_project ON annotations (untaught, project, due, annotation DESC);
CREATE INDEX ix_failures_job ON failures (job);
CREATE INDEX ix_failures_task ON failures (task);
CREATE INDEX ix_jobs_project ON jobs (project);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_jobs_withdraws ON jobs (withdraws);
CREATE INDEX ix_polls_due ON polls (due);
CREATE INDEX ix_runs_project_kind ON runs (project, kind);
CREATE INDEX ix_runs_state ON runs (state);
CREATE INDEX ix_training_examples_annotation ON training_examples (project, model, annotation);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',7);
INSERT INTO "sqlite_sequence" VALUES('jobs',1);
COMMIT;
