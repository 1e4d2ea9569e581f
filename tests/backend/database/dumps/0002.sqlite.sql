INSERT INTO polls (project, since, noted, walked, polled, due, tasks, trouble, owner, leased_until) VALUES (7, 990.25, 1000.0, 1060.0, 1070.5, 1130.5, 12, 'Away.', '', 0.0);
