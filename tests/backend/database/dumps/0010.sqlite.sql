INSERT INTO label_reviews VALUES(7,1700000010.5,'{"reviewed": 4, "examples": 0, "seconds": 1.5, "suspicions": [], "left_out": []}');
INSERT INTO confirmed_annotations VALUES(7,12,1700000000.25);
