import { expect, test } from "vitest";
import { parseMessage } from "./messages";

const check = (frame: unknown, known: boolean) => expect(parseMessage(frame) !== null).toBe(known);

test("known messages are read", () => {
  check('{"type":"pipeline","name":"demo","steps":[]}', true);
  check('{"type":"machines","machines":[]}', true);
  check('{"type":"cycles","machine":"m","reset":true,"cycles":[]}', true);
  check('{"type":"samples","machine":"m","signals":{"p":[[1,null]]}}', true);
  check('{"type":"alerts","alerts":[]}', true);
});

test("anything else is left alone", () => {
  check('{"type":"alerts"', false);
  check('{"type":"alerts"}', false);
  check('{"type":"machines","machines":{}}', false);
  check('{"type":"samples","machine":"m","signals":null}', false);
  check('{"type":"toString","machines":[]}', false);
  check('{"type":"from a newer server"}', false);
  check("null", false);
  check("[]", false);
  check(new Uint8Array([1, 2]), false);
});
