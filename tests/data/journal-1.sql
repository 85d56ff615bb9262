CREATE TABLE chatmagic_acts (
	session VARCHAR(32) NOT NULL, 
	place INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (session, place)
);
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',0,'{"what": "set system", "stamp": 0, "after": {"own": {"values": {"system": "Be kind"}, "unset": []}, "since": {"system": 0}}}');
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',1,'{"what": "turn #1", "stamp": 1, "after": {"head": 1}}');
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',2,'{"what": "turn #2", "stamp": 2, "after": {"head": 2, "line": {"values": {"temperature": 0.5}, "unset": []}}}');
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',3,'{"what": "pin 1", "stamp": 3, "after": {"pinned": [1]}}');
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',4,'{"what": "remember", "stamp": 4, "after": {"facts": ["a fact"]}}');
INSERT INTO "chatmagic_acts" VALUES('5686d367bd6eece01fffd89e5fa1f7e6',5,'{"what": "remember", "stamp": 6, "after": {"facts": ["a fact", "undone"]}}');
INSERT INTO "chatmagic_acts" VALUES('f1834196bc63794d231b3350015e93e6',0,'{"what": "turn #3", "stamp": 9, "before": {"head": 1, "own": {"values": {"system": "Be kind"}, "unset": []}, "line": {"values": {}, "unset": []}, "since": {"system": 0}, "pinned": [1], "facts": ["a fact"], "cut": null}, "after": {"head": 3}}');
CREATE TABLE chatmagic_kernels (
	id VARCHAR(32) NOT NULL, 
	notebook TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "chatmagic_kernels" VALUES('d9277ae7bae88c1562b93694430d575e','/home/ada/stats.ipynb','elsewhere',4242,1795400000.0);
CREATE TABLE chatmagic_meta (
	name VARCHAR(40) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "chatmagic_meta" VALUES('version','1');
CREATE TABLE chatmagic_pieces (
	ask VARCHAR(32) NOT NULL, 
	place INTEGER NOT NULL, 
	session VARCHAR(32) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (ask, place)
);
INSERT INTO "chatmagic_pieces" VALUES('3a96cfe7f158de3bdbd4e1cfe644399f',0,'5686d367bd6eece01fffd89e5fa1f7e6','{"prompt": "And who am I?", "parent": 2, "started": 1795401755.1606352, "settings": {"values": {"temperature": 0.5}, "unset": []}, "model": "m"}');
INSERT INTO "chatmagic_pieces" VALUES('3a96cfe7f158de3bdbd4e1cfe644399f',1,'5686d367bd6eece01fffd89e5fa1f7e6','[["reply", "You are"]]');
CREATE TABLE chatmagic_sessions (
	id VARCHAR(32) NOT NULL, 
	kernel VARCHAR(32) NOT NULL, 
	tree VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	turns INTEGER NOT NULL, 
	updated FLOAT NOT NULL, 
	gone BOOLEAN NOT NULL, 
	follows VARCHAR(32), 
	body TEXT NOT NULL, 
	since FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "chatmagic_sessions" VALUES('5686d367bd6eece01fffd89e5fa1f7e6','d9277ae7bae88c1562b93694430d575e','f12af96935114bab707bfff3c4fd53d8','tutor',2,1.7954017551860647202e+09,0,NULL,'{"state": {"head": 2, "own": {"values": {"system": "Be kind"}, "unset": []}, "line": {"values": {"temperature": 0.5}, "unset": []}, "since": {"system": 0}, "pinned": [1], "facts": ["a fact"], "cut": null}, "done": 5, "spent": {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "_seen": 0, "cost": 0.0, "unpriced": 0, "guessed": false}}',NULL);
INSERT INTO "chatmagic_sessions" VALUES('f1834196bc63794d231b3350015e93e6','d9277ae7bae88c1562b93694430d575e','f12af96935114bab707bfff3c4fd53d8','fork',2,1.79540175518613600736e+09,0,NULL,'{"state": {"head": 3, "own": {"values": {"system": "Be kind"}, "unset": []}, "line": {"values": {}, "unset": []}, "since": {"system": 0}, "pinned": [1], "facts": ["a fact"], "cut": null}, "done": 1, "spent": {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "_seen": 0, "cost": 0.0, "unpriced": 0, "guessed": false}}',NULL);
CREATE TABLE chatmagic_trees (
	id VARCHAR(32) NOT NULL, 
	"key" TEXT NOT NULL, 
	base VARCHAR(32), 
	shared INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "chatmagic_trees" VALUES('f12af96935114bab707bfff3c4fd53d8','83146f9b8705d4d50068e030f8bd06a3',NULL,0);
CREATE TABLE chatmagic_turns (
	id INTEGER NOT NULL, 
	tree VARCHAR(32) NOT NULL, 
	number INTEGER NOT NULL, 
	started FLOAT NOT NULL, 
	prompt TEXT NOT NULL, 
	reply TEXT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (tree, number)
);
INSERT INTO "chatmagic_turns" VALUES(1,'f12af96935114bab707bfff3c4fd53d8',1,0.0,'My name is Ada','Hello Ada','{"turn": 1, "parent": null, "prompt": "My name is Ada", "reply": "Hello Ada", "reasoning": "", "model": "", "endpoint": "", "settings": {"values": {}, "unset": []}, "usage": {"input_tokens": null, "output_tokens": null, "cached_tokens": null, "reasoning_tokens": null, "cache_write_tokens": null, "cost": null}, "sent": null, "size": null, "status": "complete", "finish": "stop", "cells": [], "started": 0.0, "seconds": 0.0}');
INSERT INTO "chatmagic_turns" VALUES(2,'f12af96935114bab707bfff3c4fd53d8',2,0.0,'What is my name?','Your name is Ada','{"turn": 2, "parent": 1, "prompt": "What is my name?", "reply": "Your name is Ada", "reasoning": "", "model": "", "endpoint": "", "settings": {"values": {"temperature": 0.5}, "unset": []}, "usage": {"input_tokens": null, "output_tokens": null, "cached_tokens": null, "reasoning_tokens": null, "cache_write_tokens": null, "cost": null}, "sent": null, "size": null, "status": "complete", "finish": "stop", "cells": [], "started": 0.0, "seconds": 0.0}');
INSERT INTO "chatmagic_turns" VALUES(3,'f12af96935114bab707bfff3c4fd53d8',3,0.0,'Aside','By the way','{"turn": 3, "parent": 1, "prompt": "Aside", "reply": "By the way", "reasoning": "", "model": "", "endpoint": "", "settings": {"values": {}, "unset": []}, "usage": {"input_tokens": null, "output_tokens": null, "cached_tokens": null, "reasoning_tokens": null, "cache_write_tokens": null, "cost": null}, "sent": null, "size": null, "status": "complete", "finish": "stop", "cells": [], "started": 0.0, "seconds": 0.0}');
CREATE VIRTUAL TABLE chatmagic_words USING fts5(prompt, reply, content='chatmagic_turns', content_rowid='id');
CREATE TRIGGER chatmagic_words_new AFTER INSERT ON chatmagic_turns BEGIN
    INSERT INTO chatmagic_words(rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
END;
CREATE TRIGGER chatmagic_words_gone AFTER DELETE ON chatmagic_turns BEGIN
    INSERT INTO chatmagic_words(chatmagic_words, rowid, prompt, reply)
    VALUES ('delete', old.id, old.prompt, old.reply);
END;
INSERT INTO chatmagic_words(chatmagic_words) VALUES ('rebuild');
