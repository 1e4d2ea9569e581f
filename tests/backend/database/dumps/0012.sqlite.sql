INSERT INTO threshold_sums (project, model, examples, sums) VALUES (7, 'model', 1, '{}');
