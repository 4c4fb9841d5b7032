BEGIN TRANSACTION;
CREATE TABLE accepted (
    token TEXT NOT NULL,
    event TEXT NOT NULL,
    server_event_id TEXT NOT NULL,
    PRIMARY KEY (token, event, server_event_id)
);
INSERT INTO "accepted" VALUES('00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ','registered','reg-accepted');
INSERT INTO "accepted" VALUES('00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','registered','reg-credited');
INSERT INTO "accepted" VALUES('00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','qualified','qual-credited');
INSERT INTO "accepted" VALUES('00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','registered','reg-rewarded');
INSERT INTO "accepted" VALUES('00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','qualified','qual-rewarded');
INSERT INTO "accepted" VALUES('00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','registered','reg-crashed');
INSERT INTO "accepted" VALUES('00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','qualified','qual-crashed');
INSERT INTO "accepted" VALUES('00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','registered','reg-raised');
INSERT INTO "accepted" VALUES('00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','qualified','qual-raised');
INSERT INTO "accepted" VALUES('00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','registered','reg-failed');
INSERT INTO "accepted" VALUES('00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','qualified','qual-failed');
INSERT INTO "accepted" VALUES('0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','registered','reg-no callback');
INSERT INTO "accepted" VALUES('0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','qualified','qual-no callback');
CREATE TABLE arrival (
    number INTEGER PRIMARY KEY,
    "when" REAL NOT NULL,
    outcome TEXT NOT NULL,
    status INTEGER,
    answer TEXT NOT NULL,
    reason TEXT NOT NULL,
    hint TEXT NOT NULL,
    lost INTEGER NOT NULL,
    body BLOB NOT NULL,
    event TEXT,
    token TEXT,
    server_id TEXT,
    server_event_id TEXT,
    referee_identity TEXT
);
INSERT INTO "arrival" VALUES(1,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_facd78d6561e84f9","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ","server_id":"srv-1","referee_identity":"accepted","server_event_id":"reg-accepted","ts":1790000000}' AS BLOB),'registered','00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ','srv-1','reg-accepted','accepted');
INSERT INTO "arrival" VALUES(2,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_2977ad7a4fd76f32","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ","server_id":"srv-1","referee_identity":"credited","server_event_id":"reg-credited","ts":1790000000}' AS BLOB),'registered','00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','srv-1','reg-credited','credited');
INSERT INTO "arrival" VALUES(3,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_2977ad7a4fd76f32","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ","server_id":"srv-1","server_event_id":"qual-credited","ts":1790000000}' AS BLOB),'qualified','00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','srv-1','qual-credited',NULL);
INSERT INTO "arrival" VALUES(4,1790000000.0,'refused',404,'{"error":"unknown_token"}','This token was not minted here for this server.','Start again from the share link; tokens of the real service are not known here, nor the other way round.',0,CAST('{"event":"registered","token":"junk","server_id":"srv-1","referee_identity":"junk","server_event_id":"reg-junk","ts":1790000000}' AS BLOB),'registered','junk','srv-1','reg-junk','junk');
INSERT INTO "arrival" VALUES(5,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_095f47dc90383237","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I","server_id":"srv-1","referee_identity":"rewarded","server_event_id":"reg-rewarded","ts":1790000000}' AS BLOB),'registered','00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','srv-1','reg-rewarded','rewarded');
INSERT INTO "arrival" VALUES(6,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_095f47dc90383237","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I","server_id":"srv-1","server_event_id":"qual-rewarded","ts":1790000000}' AS BLOB),'qualified','00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','srv-1','qual-rewarded',NULL);
INSERT INTO "arrival" VALUES(7,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_05da13912b8839d4","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4","server_id":"srv-1","referee_identity":"crashed","server_event_id":"reg-crashed","ts":1790000000}' AS BLOB),'registered','00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','srv-1','reg-crashed','crashed');
INSERT INTO "arrival" VALUES(8,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_05da13912b8839d4","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4","server_id":"srv-1","server_event_id":"qual-crashed","ts":1790000000}' AS BLOB),'qualified','00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','srv-1','qual-crashed',NULL);
INSERT INTO "arrival" VALUES(9,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_71128a84af2eed74","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s","server_id":"srv-1","referee_identity":"raised","server_event_id":"reg-raised","ts":1790000000}' AS BLOB),'registered','00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','srv-1','reg-raised','raised');
INSERT INTO "arrival" VALUES(10,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_71128a84af2eed74","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s","server_id":"srv-1","server_event_id":"qual-raised","ts":1790000000}' AS BLOB),'qualified','00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','srv-1','qual-raised',NULL);
INSERT INTO "arrival" VALUES(11,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_74a432c7dbda3bef","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM","server_id":"srv-1","referee_identity":"failed","server_event_id":"reg-failed","ts":1790000000}' AS BLOB),'registered','00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','srv-1','reg-failed','failed');
INSERT INTO "arrival" VALUES(12,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_74a432c7dbda3bef","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM","server_id":"srv-1","server_event_id":"qual-failed","ts":1790000000}' AS BLOB),'qualified','00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','srv-1','qual-failed',NULL);
INSERT INTO "arrival" VALUES(13,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_080fb4dd130c2d6b","state":"registered"}','The referral is now registered.','',0,CAST('{"event":"registered","token":"0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ","server_id":"srv-1","referee_identity":"no callback","server_event_id":"reg-no callback","ts":1790000000}' AS BLOB),'registered','0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','srv-1','reg-no callback','no callback');
INSERT INTO "arrival" VALUES(14,1790000000.0,'accepted',200,'{"ok":true,"referral_id":"rfl_080fb4dd130c2d6b","state":"qualified"}','The referral is now qualified.','',0,CAST('{"event":"qualified","token":"0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ","server_id":"srv-1","server_event_id":"qual-no callback","ts":1790000000}' AS BLOB),'qualified','0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','srv-1','qual-no callback',NULL);
CREATE TABLE referral (
    token TEXT PRIMARY KEY,
    server_id TEXT NOT NULL,
    ref TEXT NOT NULL,
    expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    referee_identity TEXT
);
INSERT INTO "referral" VALUES('00000003eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.W-u2ezu1-d1XKZkCPis_UpAKHqQ','srv-1','anna',1797776000,'registered','accepted');
INSERT INTO "referral" VALUES('00000004eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.RNDbzel_NJAbYlbnx6xevME80EQ','srv-1','anna',1797776000,'qualified','credited');
INSERT INTO "referral" VALUES('00000006eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.rER5lSFClM7yMd8RdNDtlyu769I','srv-1','anna',1797776000,'qualified','rewarded');
INSERT INTO "referral" VALUES('00000007eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.79NhRaAwEH1RmbXds-nQS6tR6j4','srv-1','anna',1797776000,'qualified','crashed');
INSERT INTO "referral" VALUES('00000008eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.yfHIz-iHl9-M9VRgE0ecRAmrM6s','srv-1','anna',1797776000,'qualified','raised');
INSERT INTO "referral" VALUES('00000009eyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.C6AwuQCXMM8ssXRKUVgoryoagSM','srv-1','anna',1797776000,'qualified','failed');
INSERT INTO "referral" VALUES('0000000aeyJyZWYiOiJhbm5hIiwiZXhwIjoxNzk3Nzc2MDAwfQ.ztIZkt3pKlrBycCBGHDMYNSCpOQ','srv-1','anna',1797776000,'qualified','no callback');
CREATE UNIQUE INDEX anchor ON referral (server_id, referee_identity)
    WHERE referee_identity IS NOT NULL;
COMMIT;
