/** Replies of a token host that are hard to repeat digit for digit. */
import { answer } from "./token_host.ts";

/** A reply with all that is hard to repeat: digits, escapes, odd members. */
export const WIRE = `{"code":0,"message":"success","data":{` +
  `"access_token":"GCP_a+b/c==","access_token_expire_in":1722342011,` +
  `"refresh_token":"GCP_r%2F1","refresh_token_expire_in":4841467787,` +
  `"open_id":"7010","seller_name":"Łódź \\"&\\" \u202eShop",` +
  `"seller_base_region":"GB","user_type":0,"granted_scopes":[],` +
  `"auth_record_id":7495540735365777507,"minus":-9007199254740993,` +
  `"nothing":null,"nested":{"ids":[12345678901234567890]}},` +
  `"request_id":"2024","later":true}`;

/** The same reply as the program prints it. */
export const PRETTY = `{
  "code": 0,
  "message": "success",
  "data": {
    "access_token": "GCP_a+b/c==",
    "access_token_expire_in": 1722342011,
    "refresh_token": "GCP_r%2F1",
    "refresh_token_expire_in": 4841467787,
    "open_id": "7010",
    "seller_name": "Łódź \\"&\\" \\u202eShop",
    "seller_base_region": "GB",
    "user_type": 0,
    "granted_scopes": [],
    "auth_record_id": 7495540735365777507,
    "minus": -9007199254740993,
    "nothing": null,
    "nested": {
      "ids": [
        12345678901234567890
      ]
    }
  },
  "request_id": "2024",
  "later": true
}
`;

/** A good reply with some text in place of its `data`. */
export function replyWith(data: string): string {
  return `{"code":0,"message":"success","data":${data},"request_id":"1"}`;
}

/** Numbers at the limits of what JavaScript can hold, by name. */
export const NUMBERS: Record<string, number | bigint> = {
  zero: 0,
  largest_safe: 9007199254740991,
  smallest_unsafe: 9007199254740992n,
  odd: 9007199254740993n,
  int64: 9223372036854775807n,
  least: -9223372036854775808n,
  uint64: 18446744073709551615n,
  record: 7495540735365777507n,
};

/** The good reply with `NUMBERS` in its data, and what looks like them. */
export const NUMBER_REPLY: Uint8Array = answer(replyWith(
  `{"access_token":"GCP_a","list":[[7495540735365777507]],` +
    Object.entries(NUMBERS).map(([name, n]) => `"${name}":${n},`).join("") +
    `"text":"7495540735365777507","escaped":"\\"7495540735365777507",` +
    `"7495540735365777507":1,"float":1.5,"large":1e21}`,
));
