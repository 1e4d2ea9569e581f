CREATE TABLE annotations (
    annotation bigint NOT NULL,
    project integer NOT NULL,
    marked integer NOT NULL,
    seen integer NOT NULL,
    open integer NOT NULL,
    untaught integer NOT NULL,
    due double precision NOT NULL,
    tries integer NOT NULL,
    owner character varying(128) NOT NULL,
    leased_until double precision NOT NULL,
    kind character varying(16) NOT NULL,
    task bigint NOT NULL,
    version text NOT NULL,
    annotator integer,
    seconds double precision,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    changes text NOT NULL,
    reason text NOT NULL
);

CREATE TABLE failures (
    id integer NOT NULL,
    job integer NOT NULL,
    task bigint NOT NULL,
    reason text NOT NULL,
    at double precision NOT NULL
);

CREATE SEQUENCE failures_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE failures_id_seq OWNED BY failures.id;

CREATE TABLE jobs (
    id integer NOT NULL,
    project integer NOT NULL,
    kind character varying(16) NOT NULL,
    "only" character varying(16) NOT NULL,
    view integer,
    "limit" integer,
    tasks text,
    scope text,
    state character varying(16) NOT NULL,
    version text NOT NULL,
    total integer,
    done integer NOT NULL,
    skipped integer NOT NULL,
    failed integer NOT NULL,
    cursor bigint NOT NULL,
    worked_s double precision NOT NULL,
    reason text NOT NULL,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    started double precision,
    finished double precision,
    owner character varying(128) NOT NULL,
    leased_until double precision NOT NULL
);

CREATE SEQUENCE jobs_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE jobs_id_seq OWNED BY jobs.id;

CREATE TABLE learned_versions (
    project integer NOT NULL,
    model character varying(64) NOT NULL,
    number integer NOT NULL,
    origin character varying(16) NOT NULL,
    digest character varying(64) NOT NULL,
    better integer NOT NULL,
    annotations integer NOT NULL,
    pictures integer NOT NULL,
    facts text NOT NULL,
    created double precision NOT NULL,
    adaptation bytea
);

CREATE TABLE learners (
    project integer NOT NULL,
    model character varying(64) NOT NULL,
    live integer,
    pinned integer NOT NULL,
    changed integer NOT NULL,
    asked integer NOT NULL,
    trouble text NOT NULL,
    due double precision NOT NULL,
    owner character varying(128) NOT NULL,
    leased_until double precision NOT NULL
);

CREATE TABLE lessons (
    annotation bigint NOT NULL,
    model character varying(64) NOT NULL,
    picture integer NOT NULL,
    project integer NOT NULL,
    digest character varying(64) NOT NULL,
    paint text NOT NULL,
    learned double precision NOT NULL,
    example bytea NOT NULL
);

CREATE TABLE results (
    key character varying(64) NOT NULL,
    task bigint NOT NULL,
    project integer,
    version text NOT NULL,
    state character varying(16) NOT NULL,
    entry bytea,
    bytes integer NOT NULL,
    begun double precision NOT NULL,
    changed double precision NOT NULL,
    due double precision NOT NULL,
    owner character varying(128) NOT NULL,
    leased_until double precision NOT NULL
);

ALTER TABLE ONLY failures ALTER COLUMN id SET DEFAULT nextval('failures_id_seq'::regclass);

ALTER TABLE ONLY jobs ALTER COLUMN id SET DEFAULT nextval('jobs_id_seq'::regclass);

INSERT INTO annotations VALUES (3, 7, 1, 0, 1, 1, 0, 0, '', 0, '', 0, '', NULL, NULL, 0, 0, '[]', '');
INSERT INTO annotations VALUES (4, 7, 1, 1, 0, 0, 0, 0, '', 0, 'compared', 104, 'v1', 4, 1.5, 10, 11, '[{"label": "car", "accepted": 1, "corrected": 0, "deleted": 0, "relabelled": {"dog": 2}, "added": 0, "received": 0, "predicted_px": 0, "true_px": 9, "shared_px": 0, "band_shared_px": 0, "band_px": 0}]', '');

INSERT INTO failures VALUES (1, 1, 9, 'No image: “é”.', 1000);
INSERT INTO failures VALUES (2, 0, 1099511627776, 'Not an image.', 1010.5);

INSERT INTO jobs VALUES (1, 7, 'project', 'all', 3, 10, '[2, 5]', '[2, 5]', 'failed', 'v1', 4, 2, 1, 1, 5, 0, 'It cannot go on.', 1000, 1010.5, 1000, 1010.5, 'host:1:aa', 0);
INSERT INTO jobs VALUES (2, 8, 'new', 'unlabeled', NULL, NULL, '[4]', NULL, 'queued', '', NULL, 0, 0, 0, 0, 0, '', 1010.5, 1010.5, NULL, NULL, '', 0);

INSERT INTO learned_versions VALUES (7, 'model', 1, 'step', 'digest', 1, 1, 1, '{"text_iou": 0.4, "adapted_iou": 0.5, "text_ious": {"car": 0.4}, "adapted_ious": {"car": 0.5}, "thresholds": {"car": 0.3}, "adapted_thresholds": {}}', 1010.5, '\xc0000000000000007b22646972656374696f6e73223a7b226474797065223a22463332222c227368617065223a5b312c325d2c22646174615f6f666673657473223a5b302c385d7d2c226f666673657473223a7b226474797065223a22463332222c227368617065223a5b315d2c22646174615f6f666673657473223a5b382c31325d7d2c226661637473223a7b226474797065223a225538222c227368617065223a5b3135375d2c22646174615f6f666673657473223a5b31322c3136395d7d7d2020202020200000003f0000003f000000007b226b696e64223a202261646170746174696f6e222c2022666f726d6174223a20312c2022646967657374223a202232623464366330653036313739393964323838646134353233633936313132333661353634386562313464323262363764373830326236383534653633343463222c20226661637473223a207b226e616d6573223a205b22636172225d2c20227069637475726573223a20317d7d');

INSERT INTO learners VALUES (7, 'model', 1, 0, 0, 0, '', 0, '', 0);

INSERT INTO lessons VALUES (3, 'model', 0, 7, 'a', '{}', 1010.5, '\x00016578616d706c65');

INSERT INTO results VALUES ('3b20c928fef8304601ae7de7dfa7ce47baa27b9d', 2, 7, 'v1', 'work', NULL, 0, 1010.5, 1010.5, 0, 'host:1:aa', 1040.5);
INSERT INTO results VALUES ('9a921aeca26bd960310b3e7379774726e6c224d0', 1, 7, 'v1', 'ready', '\x7801ab56cacd4f49cd892f4b2d2acecccf53b2522a3354d2512a4ece2f4a55b232d033d5512a4a2d2ecd2951b28a368cad05007f450f63', 55, 1010.5, 1010.5, 1020, 'host:1:aa', 0);

SELECT pg_catalog.setval('failures_id_seq', 2, true);

SELECT pg_catalog.setval('jobs_id_seq', 2, true);

ALTER TABLE ONLY annotations
    ADD CONSTRAINT annotations_pkey PRIMARY KEY (annotation);

ALTER TABLE ONLY failures
    ADD CONSTRAINT failures_pkey PRIMARY KEY (id);

ALTER TABLE ONLY jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY learned_versions
    ADD CONSTRAINT learned_versions_pkey PRIMARY KEY (project, model, number);

ALTER TABLE ONLY learners
    ADD CONSTRAINT learners_pkey PRIMARY KEY (project, model);

ALTER TABLE ONLY lessons
    ADD CONSTRAINT lessons_pkey PRIMARY KEY (annotation, model, picture);

ALTER TABLE ONLY results
    ADD CONSTRAINT results_pkey PRIMARY KEY (key);

CREATE INDEX ix_annotations_open ON annotations USING btree (open);

CREATE INDEX ix_annotations_project ON annotations USING btree (project);

CREATE INDEX ix_annotations_task ON annotations USING btree (task);

CREATE INDEX ix_annotations_untaught ON annotations USING btree (untaught);

CREATE INDEX ix_failures_job ON failures USING btree (job);

CREATE INDEX ix_jobs_project ON jobs USING btree (project);

CREATE INDEX ix_jobs_state ON jobs USING btree (state);

CREATE INDEX ix_lessons_project ON lessons USING btree (project);

CREATE INDEX ix_results_changed ON results USING btree (changed);

CREATE INDEX ix_results_project ON results USING btree (project);

CREATE INDEX ix_results_state ON results USING btree (state);

CREATE INDEX ix_results_task ON results USING btree (task);
