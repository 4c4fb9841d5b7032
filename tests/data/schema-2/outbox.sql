BEGIN TRANSACTION;
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL,
    event TEXT NOT NULL,
    test INTEGER NOT NULL,
    token TEXT NOT NULL,
    server_id TEXT NOT NULL,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    due INTEGER,
    claim TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    recorded INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    settled INTEGER,
    status INTEGER,
    answer TEXT,
    referral_id TEXT,
    referrer TEXT,
    history TEXT, digest TEXT,
    UNIQUE (identity, event, test)
);
INSERT INTO "event" VALUES(1,'new','registered',0,'00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8','srv-1',CAST('{"event":"registered","token":"00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8","server_id":"srv-1","referee_identity":"new","server_event_id":"reg-new","ts":1790000000}' AS BLOB),'pending',1790000000000,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,'anna',NULL,'e12cc449bdfa3ade59288e8a78d121df');
INSERT INTO "event" VALUES(2,'new','qualified',0,'00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8','srv-1',CAST('{"event":"qualified","token":"00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8","server_id":"srv-1","server_event_id":"qual-new","ts":1790000000}' AS BLOB),'pending',NULL,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,'anna',NULL,NULL);
INSERT INTO "event" VALUES(3,'second','registered',0,'00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8','srv-1',CAST('{"event":"registered","token":"00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8","server_id":"srv-1","referee_identity":"second","server_event_id":"reg-second","ts":1790000000}' AS BLOB),'ignored',NULL,NULL,0,0,1790000000000,0,1790000000000,NULL,'another account was reported with this token first',NULL,NULL,NULL,NULL);
INSERT INTO "event" VALUES(4,'second','qualified',0,'00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8','srv-1',CAST('{"event":"qualified","token":"00000000eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.-UyxUkw2MRu-o-TLg7QueQBPlL8","server_id":"srv-1","server_event_id":"qual-second","ts":1790000000}' AS BLOB),'ignored',NULL,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "event" VALUES(5,'tester','registered',1,'00000001eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.do7fGwYNZiE3zUDbBU7nMJg7xAE','srv-1',CAST('{"event":"registered","token":"00000001eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.do7fGwYNZiE3zUDbBU7nMJg7xAE","server_id":"srv-1","referee_identity":"tester","server_event_id":"reg-tester","ts":1790000000,"test":true}' AS BLOB),'pending',1790000000000,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "event" VALUES(6,'retried','registered',0,'00000002eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.QWD17aTNojoH3xvCOSwDqEG4IBk','srv-1',CAST('{"event":"registered","token":"00000002eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.QWD17aTNojoH3xvCOSwDqEG4IBk","server_id":"srv-1","referee_identity":"retried","server_event_id":"reg-retried","ts":1790000000}' AS BLOB),'pending',1790000005000,NULL,1,0,1790000000000,1790000000000,1790000000000,503,'down',NULL,NULL,NULL,'485a4ad2c95da4afd3d0d31327f9ca68');
INSERT INTO "event" VALUES(7,'accepted','registered',0,'00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ','srv-1',CAST('{"event":"registered","token":"00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ","server_id":"srv-1","referee_identity":"accepted","server_event_id":"reg-accepted","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1','anna',NULL,'24990b03865d03d37a7891a6e0cd8081');
INSERT INTO "event" VALUES(8,'accepted','qualified',0,'00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ','srv-1',CAST('{"event":"qualified","token":"00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ","server_id":"srv-1","server_event_id":"qual-accepted","ts":1790000000}' AS BLOB),'pending',1790000000000,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,'anna',NULL,NULL);
INSERT INTO "event" VALUES(9,'credited','registered',0,'00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','srv-1',CAST('{"event":"registered","token":"00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ","server_id":"srv-1","referee_identity":"credited","server_event_id":"reg-credited","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1','anna',NULL,'df46ba995f7c8902c8afa855ff37ccbb');
INSERT INTO "event" VALUES(10,'credited','qualified',0,'00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','srv-1',CAST('{"event":"qualified","token":"00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ","server_id":"srv-1","server_event_id":"qual-credited","ts":1790000000}' AS BLOB),'accepted',1790000000000,NULL,0,0,1790000000000,0,1790000000000,200,'{"ok":true,"state":"qualified","referral_id":"rfl_1"}','rfl_1','anna',NULL,NULL);
INSERT INTO "event" VALUES(11,'conflict','registered',0,'00000005eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.BEBuBhAExwP3u9qIudb-PTB7tl4','srv-1',CAST('{"event":"registered","token":"00000005eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.BEBuBhAExwP3u9qIudb-PTB7tl4","server_id":"srv-1","referee_identity":"conflict","server_event_id":"reg-conflict","ts":1790000000}' AS BLOB),'ignored',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"ignored"}',NULL,NULL,NULL,'03b5b508914104715b1c7a716ab0e6b0');
INSERT INTO "event" VALUES(12,'conflict','qualified',0,'00000005eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.BEBuBhAExwP3u9qIudb-PTB7tl4','srv-1',CAST('{"event":"qualified","token":"00000005eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.BEBuBhAExwP3u9qIudb-PTB7tl4","server_id":"srv-1","server_event_id":"qual-conflict","ts":1790000000}' AS BLOB),'ignored',NULL,NULL,0,0,1790000000000,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "event" VALUES(13,'junk','registered',0,'junk','srv-1',CAST('{"event":"registered","token":"junk","server_id":"srv-1","referee_identity":"junk","server_event_id":"reg-junk","ts":1790000000}' AS BLOB),'rejected',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,404,'{"error":"unknown_token"}',NULL,NULL,NULL,'c6c4bedcf7c8b87858fa1a2d55866b3c');
INSERT INTO "event" VALUES(14,'rewarded','registered',0,'00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','srv-1',CAST('{"event":"registered","token":"00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I","server_id":"srv-1","referee_identity":"rewarded","server_event_id":"reg-rewarded","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1','anna',NULL,'5ecff587688d7a79b0d015593de7f4a4');
INSERT INTO "event" VALUES(15,'rewarded','qualified',0,'00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','srv-1',CAST('{"event":"qualified","token":"00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I","server_id":"srv-1","server_event_id":"qual-rewarded","ts":1790000000}' AS BLOB),'rewarded',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,NULL,'rfl_1','anna','[[1790000000000, 200, "{\"ok\":true,\"state\":\"qualified\",\"referral_id\":\"rfl_1\"}"]]',NULL);
INSERT INTO "event" VALUES(16,'crashed','registered',0,'00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','srv-1',CAST('{"event":"registered","token":"00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4","server_id":"srv-1","referee_identity":"crashed","server_event_id":"reg-crashed","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1',NULL,NULL,'66eb4a842b984cd67edd1ea2e22289c0');
INSERT INTO "event" VALUES(17,'crashed','qualified',0,'00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','srv-1',CAST('{"event":"qualified","token":"00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4","server_id":"srv-1","server_event_id":"qual-crashed","ts":1790000000}' AS BLOB),'unknown',1790000060000,NULL,1,0,1790000000000,1790000000000,1790000000000,200,NULL,'rfl_1',NULL,'[[1790000000000, 200, "{\"ok\":true,\"state\":\"qualified\",\"referral_id\":\"rfl_1\"}"]]',NULL);
INSERT INTO "event" VALUES(18,'raised','registered',0,'00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','srv-1',CAST('{"event":"registered","token":"00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s","server_id":"srv-1","referee_identity":"raised","server_event_id":"reg-raised","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1',NULL,NULL,'2bb34f695d1705fc89a19fb927e6105d');
INSERT INTO "event" VALUES(19,'raised','qualified',0,'00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','srv-1',CAST('{"event":"qualified","token":"00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s","server_id":"srv-1","server_event_id":"qual-raised","ts":1790000000}' AS BLOB),'unknown',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,NULL,'RuntimeError: the game is down','rfl_1',NULL,'[[1790000000000, 200, "{\"ok\":true,\"state\":\"qualified\",\"referral_id\":\"rfl_1\"}"]]',NULL);
INSERT INTO "event" VALUES(20,'failed','registered',0,'00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','srv-1',CAST('{"event":"registered","token":"00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM","server_id":"srv-1","referee_identity":"failed","server_event_id":"reg-failed","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1',NULL,NULL,'3b677db4797d2a4827e68dbf3bf071e9');
INSERT INTO "event" VALUES(21,'failed','qualified',0,'00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','srv-1',CAST('{"event":"qualified","token":"00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM","server_id":"srv-1","server_event_id":"qual-failed","ts":1790000000}' AS BLOB),'unpaid',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,NULL,'RuntimeError: the game is down','rfl_1',NULL,'[[1790000000000, 200, "{\"ok\":true,\"state\":\"qualified\",\"referral_id\":\"rfl_1\"}"]]',NULL);
INSERT INTO "event" VALUES(22,'no callback','registered',0,'0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','srv-1',CAST('{"event":"registered","token":"0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ","server_id":"srv-1","referee_identity":"no callback","server_event_id":"reg-no callback","ts":1790000000}' AS BLOB),'accepted',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'{"ok":true,"state":"registered","referral_id":"rfl_1"}','rfl_1',NULL,NULL,'009811f5f56148c0b40e403e297552f3');
INSERT INTO "event" VALUES(23,'no callback','qualified',0,'0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','srv-1',CAST('{"event":"qualified","token":"0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ","server_id":"srv-1","server_event_id":"qual-no callback","ts":1790000000}' AS BLOB),'unpaid',NULL,NULL,1,0,1790000000000,1790000000000,1790000000000,200,'the site has no @mmolove.reward',NULL,NULL,NULL,NULL);
INSERT INTO "event" VALUES(24,'claimed','registered',0,'0000000deyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.nragzaGi7KgB5TkrcYspZjtYjMo','srv-1',CAST('{"event":"registered","token":"0000000deyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.nragzaGi7KgB5TkrcYspZjtYjMo","server_id":"srv-1","referee_identity":"claimed","server_event_id":"reg-claimed","ts":1790000000}' AS BLOB),'pending',1790000060000,'16d5f340b6fac03e',1,0,1790000000000,1789999993000,NULL,NULL,NULL,NULL,NULL,NULL,'016842e473972a01a096343bed501786');
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
;
INSERT INTO "fact" VALUES('breaker','{"failures":1,"refusals":0,"refused_since":null,"open_since":null,"reason":"","probes":0,"not_before":0,"width":8,"proven":1790000000000,"down":7000,"status":503}');
INSERT INTO "fact" VALUES('rewards','[[21],null,"RuntimeError: the game is down",0,0]');
INSERT INTO "fact" VALUES('settings','of the tests');
INSERT INTO "fact" VALUES('tokens owned','yes');
INSERT INTO "fact" VALUES('worker','[1790000000000, 0]');
CREATE TABLE held (
    name TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    referrer TEXT,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "held" VALUES('a held key','0000000ceyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.GsLdDtyUGfaz9KKvQ08jjJzItXw','anna',1797776000000);
CREATE TABLE referrer (
    player TEXT NOT NULL,
    step TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (player, step)
) WITHOUT ROWID;
INSERT INTO "referrer" VALUES('anna','accepted',4);
INSERT INTO "referrer" VALUES('anna','qualified',2);
INSERT INTO "referrer" VALUES('anna','rewarded',1);
CREATE TABLE tally (
    day INTEGER NOT NULL,
    step TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (day, step)
) WITHOUT ROWID;
INSERT INTO "tally" VALUES(1789948800000,'accepted',8);
INSERT INTO "tally" VALUES(1789948800000,'ignored',1);
INSERT INTO "tally" VALUES(1789948800000,'qualified',6);
INSERT INTO "tally" VALUES(1789948800000,'rewarded',1);
CREATE TABLE used (digest TEXT PRIMARY KEY);
INSERT INTO "used" VALUES('bbee959f60292c5fa500efc951068d02');
CREATE INDEX event_due ON event (state, due) WHERE due IS NOT NULL;
CREATE INDEX event_state ON event (state);
CREATE INDEX event_referrer ON event (referrer) WHERE referrer IS NOT NULL;
CREATE INDEX held_expires ON held (expires);
CREATE INDEX referrer_best ON referrer (step, count);
CREATE UNIQUE INDEX event_digest ON event (digest) WHERE digest IS NOT NULL;
COMMIT;
PRAGMA user_version = 2;
PRAGMA application_id = 1296911362;
