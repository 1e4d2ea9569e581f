INSERT INTO fitted_pictures (project, model, number, pictures) VALUES (7, 'model', 1, '["p1"]');
INSERT INTO trials (project, model, number, before, since) VALUES (7, 'model', 1, NULL, 1010.5);
INSERT INTO trial_pictures (project, model, number, picture, annotation, from_before, from_words, at) VALUES (7, 'model', 1, 'p2', 4, NULL, 0.25, 1011.0);
INSERT INTO rollbacks (id, project, model, number, target, at, facts) VALUES (1, 7, 'model', 2, 1, 1012.0, '{"pictures": 9, "mean": -0.5, "digest": "d2", "annotations": [4]}');
INSERT INTO trusted_annotations (project, annotation) VALUES (7, 3);
