/**
 * The published operations of TikTok Shop's API, and whether each takes a
 * `shop_cipher`. Drawn from TikTok's own generated Go SDK (158 operations) and
 * from a Python SDK that was generated from the API reference (318); where
 * both describe one, they agree.
 *
 * @module
 */

/** One operation. */
export interface Operation {
  readonly method: string;
  /** With `{name}` where an id stands. */
  readonly path: string;
  readonly shopCipher: "required" | "optional" | "none";
}

/** Why no operation answers: the path, its version or the method is wrong. */
export type Mismatch = "path" | "version" | "method";

interface Pattern {
  /** The operations of one path, one a method. */
  readonly operations: Operation[];
  /** The path in any version, which is its first group. */
  readonly path: RegExp;
  readonly version: string;
  /** How many names the path has: the fewer, the closer it fits. */
  readonly names: number;
}

let parsed: readonly Operation[] | undefined;
let patterns: readonly Pattern[] | undefined;

/** All 362 operations. The table is parsed at the first call. */
export function publishedOperations(): readonly Operation[] {
  return parsed ??= TABLE.trim().split("\n").map((line) => {
    const [method, path, shopCipher] = line.split(" ");
    return { method, path, shopCipher } as Operation;
  });
}

/** The operation that a method and a path mean, or why there is none. */
export function findOperation(
  method: string,
  path: string,
): Operation | Mismatch {
  patterns ??= patternsOf(publishedOperations());
  const known = patterns.flatMap((pattern) => {
    const [, version] = pattern.path.exec(path) ?? [];
    return version === undefined ? [] : [{ ...pattern, asked: version }];
  });
  if (known.length === 0) return "path";
  const [first] = known.filter(({ version, asked }) => version === asked);
  if (first === undefined) return "version";
  return first.operations.find((one) => one.method === method) ?? "method";
}

/** The patterns of all paths, those with the fewest names first. */
function patternsOf(operations: readonly Operation[]): Pattern[] {
  const byPath = new Map<string, Operation[]>();
  for (const operation of operations) {
    const others = byPath.get(operation.path) ?? [];
    byPath.set(operation.path, [...others, operation]);
  }
  return [...byPath].map(([path, operations]) => ({
    operations,
    path: pathPattern(path, true),
    version: VERSION.exec(path)?.[1] ?? "",
    names: path.split("{").length,
  })).sort((a, b) => a.names - b.names);
}

const VERSION = /\/(\d{6})\//;

/** What matches a path whose `{name}` may be anything but a slash. */
export function pathPattern(path: string, inAnyVersion = false): RegExp {
  const source = path.replace(/[.*+?^$()|[\]\\]/g, "\\$&")
    .replace(/\{\w+\}/g, "[^/]+");
  const open = inAnyVersion ? source.replace(VERSION, "/(\\d{6})/") : source;
  return new RegExp(`^${open}$`);
}

const TABLE = `
POST /affiliate_creator/202405/open_collaborations/products/search none
GET /affiliate_creator/202405/showcases/products none
POST /affiliate_creator/202405/showcases/products/add none
POST /affiliate_creator/202405/target_collaborations/search none
POST /affiliate_creator/202409/sample_applications/fulfillments/search none
DELETE /affiliate_creator/202409/showcases/products none
POST /affiliate_creator/202409/showcases/products/top none
POST /affiliate_creator/202410/orders/search none
POST /affiliate_creator/202412/sample_applications/search none
POST /affiliate_creator/202412/sample_applications/single_query none
GET /affiliate_creator/202412/samples/labels none
POST /affiliate_creator/202504/affiliate_sharing_links/publisher/{publisher_id}/generate_batch none
POST /affiliate_creator/202505/affiliate_sharing_links/general_publishers/generate_batch none
POST /affiliate_creator/202505/orders/trace/search none
POST /affiliate_creator/202505/videos/video_files none
GET /affiliate_creator/202508/profiles none
POST /affiliate_creator/202509/open_collaborations/products none
GET /affiliate_creator/202509/shop_products none
GET /affiliate_creator/202509/videos/{video_id}/status none
POST /affiliate_creator/202511/photos/photo_files none
POST /affiliate_creator/202511/videos/precheck_task none
GET /affiliate_creator/202601/videos/precheck_tasks/{task_id} none
POST /affiliate_creator/202603/videos none
GET /affiliate_creator/202606/toko_product_mappers none
POST /affiliate_creator/202607/map_toko_product none
POST /affiliate_creator/202610/photos none
GET /affiliate_partner/202405/campaigns none
POST /affiliate_partner/202405/campaigns none
GET /affiliate_partner/202405/campaigns/{campaign_id} none
POST /affiliate_partner/202405/campaigns/{campaign_id}/partial_edit none
GET /affiliate_partner/202405/campaigns/{campaign_id}/products none
POST /affiliate_partner/202405/campaigns/{campaign_id}/products/{product_id}/promotion_link/generate none
POST /affiliate_partner/202405/campaigns/{campaign_id}/products/{product_id}/review none
POST /affiliate_partner/202405/campaigns/{campaign_id}/publish none
GET /affiliate_partner/202501/campaigns/{campaign_id}/products/performance none
POST /affiliate_partner/202505/campaigns/{campaign_id}/products/promotion_links/generate_batch none
GET /affiliate_partner/202508/campaigns/{campaign_id}/products/{product_id}/creator/{creator_temp_id}/content/statistics none
GET /affiliate_partner/202508/campaigns/{campaign_id}/products/{product_id}/creator/{creator_temp_id}/content/statistics/sample/status none
GET /affiliate_partner/202508/campaigns/{campaign_id}/products/{product_id}/performance none
POST /affiliate_partner/202603/cap_order/search none
POST /affiliate_partner/202603/orders/search none
POST /affiliate_seller/202405/open_collaboration_settings required
POST /affiliate_seller/202405/open_collaborations/products/search required
POST /affiliate_seller/202405/products/{product_id}/promotion_link/generate required
GET /affiliate_seller/202409/open_collaboration_settings required
DELETE /affiliate_seller/202409/open_collaborations/products/{product_id} required
POST /affiliate_seller/202409/sample_applications/{application_id}/fulfillments/search required
DELETE /affiliate_seller/202409/target_collaborations/{target_collaboration_id} required
GET /affiliate_seller/202410/open_collaborations/sample_rules required
POST /affiliate_seller/202410/open_collaborations/sample_rules required
POST /affiliate_seller/202410/orders/search required
GET /affiliate_seller/202412/conversation/{conversation_id}/messages required
GET /affiliate_seller/202412/conversations required
GET /affiliate_seller/202412/conversations/messages/list/newest required
POST /affiliate_seller/202412/conversations/{conversation_id}/messages required
POST /affiliate_seller/202412/conversatons/read required
POST /affiliate_seller/202412/open_collaborations required
POST /affiliate_seller/202412/open_collaborations/search required
POST /affiliate_seller/202507/sample_applications/{application_id}/review required
POST /affiliate_seller/202508/conversations required
GET /affiliate_seller/202508/open_collaborations/creator_content_details required
POST /affiliate_seller/202508/open_collaborations/{open_collaboration_id}/remove_creator required
POST /affiliate_seller/202508/sample_applications/search required
POST /affiliate_seller/202508/target_collaborations required
POST /affiliate_seller/202508/target_collaborations/search required
GET /affiliate_seller/202508/target_collaborations/{target_collaboration_id} required
PUT /affiliate_seller/202508/target_collaborations/{target_collaboration_id} required
POST /affiliate_seller/202509/target_collaboration/{target_collaboration_id}/link required
POST /affiliate_seller/202511/images/upload none
GET /affiliate_seller/202512/sample_applications/deeplink required
POST /affiliate_seller/202603/compass/offline_task required
GET /affiliate_seller/202603/compass/offline_tasks required
GET /affiliate_seller/202603/compass/offline_tasks/{task_id}/file required
POST /affiliate_seller/202605/target_collaborations/conflicts/check required
POST /affiliate_seller/202605/target_collaborations/conflicts/resolve required
GET /affiliate_seller/202607/creator_outreach/quota required
GET /affiliate_seller/202608/conversations/group_counts required
POST /affiliate_seller/202608/conversations/{conversation_id}/status required
POST /affiliate_seller/202608/creator_outreach/records/query required
POST /affiliate_seller/202608/marketplace_creators/search required
POST /affiliate_seller/202608/marketplace_creators/search/filter required
GET /affiliate_seller/202608/marketplace_creators/{creator_user_id} required
POST /affiliate_seller/202608/media/upload required
POST /affiliate_seller/202608/target_collaborations/creator_promotion_details/query required
POST /affiliate_seller/202610/creator_outreach/eligibility/check required
GET /analytics/202403/videos/performances none
GET /analytics/202405/shop/performance required
GET /analytics/202405/shop_products/performance required
GET /analytics/202405/shop_products/{product_id}/performance required
GET /analytics/202406/shop_skus/performance required
GET /analytics/202406/shop_skus/{sku_id}/performance required
GET /analytics/202409/shop_videos/overview_performance required
GET /analytics/202409/shop_videos/performance required
GET /analytics/202409/shop_videos/{video_id}/performance required
GET /analytics/202409/shop_videos/{video_id}/products/performance required
GET /analytics/202502/live_rooms/{live_room_id}/core_stats none
GET /analytics/202502/live_rooms/{live_room_id}/gmv_trend_performances none
GET /analytics/202502/live_rooms/{live_room_id}/interactive_trend_performances none
GET /analytics/202502/live_rooms/{live_room_id}/product_stats none
GET /analytics/202502/live_rooms/{live_room_id}/traffic_performances none
GET /analytics/202502/live_rooms/{live_room_id}/user_portraits none
GET /analytics/202502/live_rooms/{live_room_id}/view_trend_performances none
GET /analytics/202508/shop_lives/overview_performance optional
GET /analytics/202508/shop_lives/performance required
GET /analytics/202509/shop_products/{product_id}/performance required
GET /analytics/202509/shop_skus/performance required
GET /analytics/202509/shop_skus/{sku_id}/performance required
GET /analytics/202509/shop_videos/{video_id}/performance required
GET /analytics/202509/shop_videos/{video_id}/products/performance required
GET /analytics/202510/shop/performance/{date}/performance_per_hour required
GET /analytics/202510/shop_lives/{live_id}/performance_per_minutes required
GET /analytics/202511/creators/bestselling required
GET /analytics/202511/lives/bestselling required
GET /analytics/202511/products/bestselling required
GET /analytics/202511/videos/bestselling required
GET /analytics/202512/shop/{live_id}/products_performance required
GET /analytics/202605/shop_products/performance required
GET /analytics/202605/shop_videos/performance required
GET /analytics/202606/shop_performances/metrics required
GET /analytics/202606/shop_performances/metrics/{metric_code}/diagnosis required
GET /analytics/202606/shop_performances/metrics/{metric_code}/problem_details required
GET /analytics/202606/shop_performances/metrics/{metric_code}/top_items required
GET /analytics/202606/shop_performances/overview required
GET /analytics/202609/shop/performance required
GET /analytics/202609/shop_lives/overview_performance required
GET /analytics/202609/shop_lives/performance required
GET /analytics/202609/shop_videos/batch_performance required
GET /analytics/202609/shop_videos/overview_performance required
GET /authorization/202309/shops none
GET /authorization/202312/widget_token none
GET /authorization/202401/widget_token none
DELETE /authorization/202403/shops required
GET /authorization/202405/category_assets none
POST /customer_engagement/202412/engagement_tasks required
GET /customer_engagement/202412/message_templates required
POST /customer_engagement/202412/messages required
POST /customer_engagement/202412/performances required
POST /customer_engagement/202502/engagement_tasks/custom required
GET /customer_engagement/202502/permissions required
GET /customer_service/202309/agents/settings optional
PUT /customer_service/202309/agents/settings optional
GET /customer_service/202309/conversations optional
POST /customer_service/202309/conversations optional
GET /customer_service/202309/conversations/{conversation_id}/messages optional
POST /customer_service/202309/conversations/{conversation_id}/messages optional
POST /customer_service/202309/conversations/{conversation_id}/messages/read optional
POST /customer_service/202309/images/upload optional
GET /customer_service/202407/performance required
GET /customer_service/202601/conversations/{conversation_id} required
POST /customer_service/202602/sessions/search required
POST /customer_service/202605/conversations/{conversation_id}/sessions/{session_id}/end required
POST /customer_service/202606/conversations/{conversation_id}/messages required
POST /data_reconciliation/202309/orders/sync none
POST /data_reconciliation/202310/orders/import optional
POST /data_reconciliation/202401/orders/import optional
DELETE /event/202309/webhooks optional
GET /event/202309/webhooks optional
PUT /event/202309/webhooks optional
POST /fbt/202408/inventory/search required
GET /fbt/202408/warehouses required
GET /fbt/202409/merchants/onboarded_regions required
POST /fbt/202410/inventory_records/search required
POST /fbt/202601/mcf/goods/inventory/search required
GET /fbt/202601/mcf_outbound_orders required
POST /fbt/202601/mcf_outbound_orders/cancel required
GET /fbt/202601/merchants/mcf_status required
POST /fbt/202602/create_update_inbound_plan required
POST /fbt/202602/inbound_method_detail required
GET /fbt/202602/inbound_orders required
POST /fbt/202602/inbound_orders/cancel required
POST /fbt/202602/inbound_orders/label_print required
POST /fbt/202602/inbound_orders/tracking_update required
POST /fbt/202602/list_available_inbound_method required
POST /fbt/202603/confirm_inbound_method required
POST /fbt/202603/goods/hazmat_and_expiration_info/search required
POST /fbt/202603/goods/update_goods_sku_relation required
POST /fbt/202603/ship_inbound_order required
POST /fbt/202607/goods/create_goods required
POST /fbt/202607/goods/search required
POST /fbt/202607/goods/update_goods_info required
POST /fbt/202607/mcf_outbound_orders required
GET /finance/202309/orders/{order_id}/statement_transactions optional
GET /finance/202309/payments optional
GET /finance/202309/statements optional
GET /finance/202309/statements/{statement_id}/statement_transactions optional
GET /finance/202309/withdrawals optional
GET /finance/202501/orders/{order_id}/statement_transactions optional
GET /finance/202501/statements/{statement_id}/statement_transactions optional
GET /finance/202507/orders/unsettled optional
GET /finance/202605/payments required
GET /finance/202609/account_balances required
GET /finance/202609/account_transactions required
GET /fulfillment/202309/combinable_packages/search optional
POST /fulfillment/202309/files/upload optional
POST /fulfillment/202309/images/upload optional
GET /fulfillment/202309/orders/split_attributes optional
GET /fulfillment/202309/orders/{order_id}/handover_time_slots optional
POST /fulfillment/202309/orders/{order_id}/packages optional
POST /fulfillment/202309/orders/{order_id}/shipping_info/update optional
POST /fulfillment/202309/orders/{order_id}/shipping_services/query optional
POST /fulfillment/202309/orders/{order_id}/split optional
GET /fulfillment/202309/orders/{order_id}/tracking optional
POST /fulfillment/202309/packages optional
POST /fulfillment/202309/packages/combine optional
POST /fulfillment/202309/packages/deliver optional
POST /fulfillment/202309/packages/schedule optional
POST /fulfillment/202309/packages/search optional
POST /fulfillment/202309/packages/ship optional
GET /fulfillment/202309/packages/{package_id} optional
GET /fulfillment/202309/packages/{package_id}/handover_time_slots optional
POST /fulfillment/202309/packages/{package_id}/ship optional
GET /fulfillment/202309/packages/{package_id}/shipping_documents optional
POST /fulfillment/202309/packages/{package_id}/shipping_info/update optional
POST /fulfillment/202309/packages/{package_id}/uncombine optional
POST /fulfillment/202407/bundles none
POST /fulfillment/202502/invoice/upload optional
GET /fulfillment/202508/tts_tracking_validation optional
POST /fulfillment/202510/first_mile_bundle optional
POST /fulfillment/202512/packages required
POST /fulfillment/202601/redeem_info/callback required
POST /fulfillment/202606/pod_details/get required
POST /fulfillment/202607/orders/customs_info/query none
POST /fulfillment/202607/orders/customs_info/submit none
POST /fulfillment/202609/order/sof/track/update required
POST /fulfillment/202610/orders/{order_id}/packages required
POST /fulfillment/202610/packages/{package_id}/shipping_info/update required
GET /logistics/202309/delivery_options/{delivery_option_id}/shipping_providers optional
GET /logistics/202309/global_warehouses none
GET /logistics/202309/warehouses optional
GET /logistics/202309/warehouses/{warehouse_id}/delivery_options optional
GET /logistics/202510/seller_templates required
GET /logistics/202604/orders/{order_id}/tracking required
GET /logistics/202606/seller_template/template_exist required
POST /open/202512/file/init none
GET /order/202309/orders optional
POST /order/202309/orders/search optional
POST /order/202406/orders/external_order_search required
POST /order/202406/orders/external_orders required
GET /order/202406/orders/{order_id}/external_orders required
GET /order/202407/orders/{order_id}/price_detail optional
GET /order/202507/orders optional
POST /order/202605/orders/blind_box_result/callback required
POST /order/202606/pod_details/search required
GET /product/202309/brands optional
POST /product/202309/brands none
GET /product/202309/categories optional
POST /product/202309/categories/recommend optional
GET /product/202309/categories/{category_id}/attributes optional
GET /product/202309/categories/{category_id}/global_attributes none
GET /product/202309/categories/{category_id}/global_rules none
GET /product/202309/categories/{category_id}/rules optional
POST /product/202309/files/upload none
GET /product/202309/global_categories none
POST /product/202309/global_categories/recommend none
DELETE /product/202309/global_products none
POST /product/202309/global_products none
POST /product/202309/global_products/search none
GET /product/202309/global_products/{global_product_id} none
PUT /product/202309/global_products/{global_product_id} none
POST /product/202309/global_products/{global_product_id}/inventory/update none
POST /product/202309/global_products/{global_product_id}/publish none
POST /product/202309/images/upload none
POST /product/202309/inventory/search optional
GET /product/202309/prerequisites optional
DELETE /product/202309/products optional
POST /product/202309/products optional
POST /product/202309/products/activate optional
POST /product/202309/products/deactivate optional
POST /product/202309/products/listing_check optional
POST /product/202309/products/recover optional
POST /product/202309/products/search optional
GET /product/202309/products/{product_id} optional
PUT /product/202309/products/{product_id} optional
POST /product/202309/products/{product_id}/inventory/update optional
POST /product/202309/products/{product_id}/partial_edit optional
POST /product/202309/products/{product_id}/prices/update optional
POST /product/202312/global_products/search none
GET /product/202312/prerequisites optional
POST /product/202312/products/search optional
GET /product/202401/listing_schemas none
POST /product/202404/images/optimize optional
GET /product/202405/products/diagnoses optional
GET /product/202405/products/seo_words optional
GET /product/202405/products/suggestions optional
GET /product/202407/listing_schemas none
POST /product/202407/products/category_upgrade_task optional
POST /product/202407/sizecharts/search none
POST /product/202409/compliance/manufacturers none
POST /product/202409/compliance/manufacturers/search none
POST /product/202409/compliance/manufacturers/{manufacturer_id}/partial_edit none
POST /product/202409/compliance/responsible_persons none
POST /product/202409/compliance/responsible_persons/search none
POST /product/202409/compliance/responsible_persons/{responsible_person_id}/partial_edit none
POST /product/202411/products/diagnose_optimize optional
POST /product/202501/compliance/manufacturers/search none
POST /product/202501/compliance/responsible_persons/search none
POST /product/202502/products/search optional
POST /product/202505/images/translation_tasks optional
GET /product/202506/images/translation_tasks optional
GET /product/202507/global_listing_rules optional
POST /product/202507/products/{product_id}/global_replicate optional
GET /product/202507/products/{product_id}/replicated_products optional
PUT /product/202509/global_products/{global_product_id}/partial_edit none
PUT /product/202509/products/{product_id} optional
POST /product/202509/products/{product_id}/partial_edit optional
POST /product/202601/compliance/auditing/research none
POST /product/202602/packages/recommend required
POST /product/202604/appeals/submit required
POST /product/202604/opportunities/query required
GET /product/202604/opportunities/submissions required
GET /product/202604/opportunities/{opportunity_id} required
POST /product/202604/opportunities/{opportunity_id}/submit required
POST /product/202604/products/gpa_upgrade_task none
POST /product/202606/skpps/search required
GET /product/202606/skpps/sum required
GET /product/202606/skpps/{product_id} required
POST /product/202608/inventory/operation/settings required
POST /product/202609/brands/suggest required
POST /product/202609/products/package/predict required
POST /product/202609/products/properties/recommend required
POST /product/202609/products/{product_id}/strikethrough_price/submit required
POST /product/202610/size_charts required
POST /product/202610/size_charts/edit required
POST /promotion/202309/activities optional
POST /promotion/202309/activities/search optional
GET /promotion/202309/activities/{activity_id} optional
PUT /promotion/202309/activities/{activity_id} optional
POST /promotion/202309/activities/{activity_id}/deactivate optional
DELETE /promotion/202309/activities/{activity_id}/products optional
PUT /promotion/202309/activities/{activity_id}/products optional
POST /promotion/202406/coupons/search optional
GET /promotion/202406/coupons/{coupon_id} optional
POST /promotion/202607/activities/{activity_id}/republish required
POST /return_refund/202309/cancellations optional
POST /return_refund/202309/cancellations/search optional
POST /return_refund/202309/cancellations/{cancel_id}/approve optional
POST /return_refund/202309/cancellations/{cancel_id}/reject optional
GET /return_refund/202309/orders/{order_id}/aftersale_eligibility optional
POST /return_refund/202309/refunds/calculate optional
GET /return_refund/202309/reject_reasons optional
POST /return_refund/202309/returns optional
POST /return_refund/202309/returns/search optional
POST /return_refund/202309/returns/{return_id}/approve optional
GET /return_refund/202309/returns/{return_id}/records optional
POST /return_refund/202309/returns/{return_id}/reject optional
POST /return_refund/202405/returns/shipping_documents required
GET /return_refund/202601/decision_eligibility required
POST /return_refund/202602/cancellations required
POST /return_refund/202602/cancellations/search required
GET /return_refund/202602/orders/{order_id}/aftersale_eligibility required
POST /return_refund/202602/refunds/calculate required
POST /return_refund/202602/returns required
POST /return_refund/202602/returns/search required
POST /return_refund/202603/aftersales/search required
POST /return_refund/202604/rma/search required
POST /return_refund/202606/returns/{return_id}/reject required
GET /return_refund/202606/review_decision required
POST /return_refund/202609/aftersales/review required
GET /seller/202309/permissions none
GET /seller/202309/shops none
GET /seller/202601/shop_groups none
POST /supply_chain/202309/packages/sync none
`;
