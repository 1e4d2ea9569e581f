INSERT INTO gates VALUES(7,'demo clearclip 1b819d9a',1,212,3,'{"share": 0.95, "confidence": 0.95, "pictures": 200, "checked": 134, "passed": 0, "changed": 0, "bound": null, "labels": []}',1700000010.5,NULL);
INSERT INTO gate_tasks VALUES(7,12,'demo clearclip 1b819d9a','{"sky": 0.75}',0,1,1,0);
