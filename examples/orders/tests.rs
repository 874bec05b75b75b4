//! The shop over real connections, to a real database, with clients that do everything
//! clients do.

#[path = "../../tests/servers/mod.rs"]
mod servers;

use crate::api;
use crate::shop::{Order, Shop, Wish};
use futures_util::future::join_all;
use serde_json::{Value, json};
use servers::Server as _;
use servers::postgres::{Postgres, client, number, parameters, runtime};
use servers::proxy::Proxy;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_postgres::Client;

const BUYERS: usize = 64;
const ORDERS_EACH: usize = 2;

/// Less than all of them want.
const STOCK: i64 = 200;

/// A process of the shop's, on a database that is reached through `port`.
async fn open(port: u16) -> SocketAddr {
    let shop = Arc::new(Shop::open(&parameters(port)).await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = api::router(shop).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A database with so many hats.
async fn stock_up(server: &Postgres, hats: i64) -> Client {
    Shop::create_schema(&server.parameters()).await.unwrap();
    let client = client(server).await;
    client.execute("INSERT INTO stock VALUES ('hat', $1)", &[&hats]).await.unwrap();
    client
}

fn wish(reference: &str, quantity: u32) -> Wish {
    let quantity = quantity.try_into().unwrap();
    Wish { reference: reference.to_owned(), item: "hat".to_owned(), quantity }
}

/// Status and body of an answer.
type Answer = (u16, Value);

/// One request on its way.
struct Call(TcpStream);

impl Call {
    async fn send(shop: SocketAddr, customer: &str, key: &str, wish: &Wish) -> Self {
        let body = json!(wish).to_string();
        let request = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\
             authorization: Bearer {customer}\r\nidempotency-key: \"{key}\"\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(shop).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn answer(mut self) -> Answer {
        let mut text = String::new();
        self.0.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

async fn post(shop: SocketAddr, customer: &str, key: &str, wish: &Wish) -> Answer {
    Call::send(shop, customer, key, wish).await.answer().await
}

fn code(answer: &Answer) -> &str {
    answer.1["code"].as_str().unwrap_or_default()
}

/// The order that was made, if one was.
fn order(answer: &Answer) -> Option<Order> {
    (answer.0 == 201).then(|| serde_json::from_value(answer.1.clone()).unwrap())
}

/// How often clients were told what.
#[derive(Default)]
struct Told {
    in_flight: AtomicU32,
    turn_taken: AtomicU32,
    unavailable: AtomicU32,
}

impl Told {
    /// True iff the request is to be sent again.
    fn must_retry(&self, answer: &Answer) -> bool {
        let count = match code(answer) {
            "in-flight" => &self.in_flight,
            "turn-taken" => &self.turn_taken,
            "unavailable" => &self.unavailable,
            "sold-out" => return false,
            _ => {
                assert_eq!(answer.0, 201, "{answer:?}");
                return false;
            }
        };
        count.fetch_add(1, Relaxed);
        true
    }
}

/// Sends an order to both processes at once, and again to one of them and hangs up, until
/// there is an answer that counts. All that count say the same.
async fn insist(shops: [SocketAddr; 2], name: &str, wish: &Wish, told: &Told) -> Option<Order> {
    for pause in (20..).step_by(20).map(Duration::from_millis) {
        let reference = &wish.reference;
        drop(Call::send(shops[reference.len() % 2], name, reference, wish).await);
        let copies = shops.map(|shop| post(shop, name, reference, wish));
        let mut answers = join_all(copies).await;
        answers.retain(|answer| !told.must_retry(answer));
        let mut orders = answers.iter().map(order);
        if let Some(made) = orders.next() {
            assert!(orders.all(|other| other == made), "{answers:?}");
            return made;
        }
        sleep(pause).await;
    }
    unreachable!("there is always a longer pause")
}

/// Buys hats, all orders at once.
async fn buy(buyer: usize, shops: [SocketAddr; 2], told: Arc<Told>) -> Vec<Order> {
    let name = format!("buyer-{buyer}");
    let one = async |number: usize| {
        let wish = wish(&format!("cart-{number}"), (buyer + number) as u32 % 3 + 1);
        insist(shops, &name, &wish, &told).await
    };
    let orders = join_all((0..ORDERS_EACH).map(one)).await;
    orders.into_iter().flatten().collect()
}

/// Cuts the connections to the database, or loses a reply, again and again.
async fn disturb(proxy: &Proxy) {
    for round in 0.. {
        sleep(Duration::from_millis(150)).await;
        if round % 2 == 0 {
            proxy.lose_next_reply();
        } else {
            proxy.cut();
            proxy.mend();
        }
    }
}

#[test]
fn buyers_who_retry_and_hang_up_get_what_is_paid_for_and_the_stock_is_never_oversold() {
    let Some(server) = Postgres::start() else { return };
    let runtime = runtime();
    runtime.block_on(async {
        let database = stock_up(&server, STOCK).await;
        let proxy = Proxy::to(server.port());
        let shops = [open(proxy.port()).await, open(proxy.port()).await];
        let told = Arc::new(Told::default());
        let buyers = (0..BUYERS).map(|buyer| tokio::spawn(buy(buyer, shops, Arc::clone(&told))));
        let all = tokio::select! {
            all = join_all(buyers) => all,
            () = disturb(&proxy) => unreachable!("it goes on for ever"),
        };
        let mut promised: Vec<Order> = all.into_iter().flat_map(Result::unwrap).collect();
        promised.sort_by_key(|order| order.number);

        // Sold is what was promised, each order once, and what is missing from the stock.
        assert_eq!(written(&database).await, promised);
        let left = number(&database, "SELECT quantity FROM stock").await;
        let sold: u32 = promised.iter().map(|order| order.quantity.get()).sum();
        assert_eq!((left + i64::from(sold), left >= 0), (STOCK, true));
        // Who was turned away was so rightly: less is left than anybody was refused.
        assert!(left < 3, "{left} hats left");
        let told = [&told.in_flight, &told.turn_taken].map(|count| count.load(Relaxed));
        assert!(told.iter().all(|count| *count > 0), "no defence was needed: {told:?}");
    });
}

/// All orders in the database.
async fn written(database: &Client) -> Vec<Order> {
    let query = "SELECT number, reference, item, quantity FROM orders ORDER BY number";
    let rows = database.query(query, &[]).await.unwrap();
    rows.iter()
        .map(|row| Order {
            number: row.get(0),
            reference: row.get(1),
            item: row.get(2),
            quantity: u32::try_from(row.get::<_, i64>(3)).unwrap().try_into().unwrap(),
        })
        .collect()
}

#[test]
fn each_defence_gives_its_own_answer() {
    let Some(server) = Postgres::start() else { return };
    let runtime = runtime();
    runtime.block_on(async {
        let database = stock_up(&server, 10).await;
        let [first, second] = [open(server.port()).await, open(server.port()).await];
        let made = post(first, "ann", "key-1", &wish("cart-1", 2)).await;
        let made_order = order(&made).unwrap();

        // Again: from the edge's memory, and in another process from the claim.
        for shop in [first, second] {
            assert_eq!(post(shop, "ann", "key-1", &wish("cart-1", 2)).await, made);
        }
        // The same key for something else.
        for shop in [first, second] {
            let reused = post(shop, "ann", "key-1", &wish("cart-1", 3)).await;
            assert_eq!((reused.0, code(&reused)), (422, "key-reused"));
        }
        // The same order with another key.
        let exists = post(second, "ann", "key-2", &wish("cart-1", 2)).await;
        assert_eq!((exists.0, code(&exists)), (409, "order-exists"));
        // Somebody else's key is his own.
        let other = order(&post(second, "bob", "key-1", &wish("cart-1", 7)).await).unwrap();
        assert_ne!(other.number, made_order.number);
        // What is left does not do, and then it does.
        let sold_out = post(first, "ann", "key-3", &wish("cart-3", 2)).await;
        assert_eq!((sold_out.0, code(&sold_out)), (409, "sold-out"));
        database
            .execute("UPDATE stock SET quantity = 2, version = version + 1", &[])
            .await
            .unwrap();
        assert_eq!(post(first, "ann", "key-3", &wish("cart-3", 2)).await.0, 201);
        assert_eq!(number(&database, "SELECT quantity FROM stock").await, 0);

        let no_key = post(first, "ann", "", &wish("cart-4", 1)).await;
        assert_eq!((no_key.0, code(&no_key)), (400, "key-malformed"));
    });
}

/// What one customer may take up while an order of his waits for the database.
#[test]
fn a_customer_has_one_turn_at_a_time() {
    let Some(server) = Postgres::start() else { return };
    let runtime = runtime();
    runtime.block_on(async {
        let mut database = stock_up(&server, 10).await;
        let shop = open(server.port()).await;
        let blocker = database.transaction().await.unwrap();
        blocker.execute("UPDATE stock SET version = version + 1", &[]).await.unwrap();
        let waiting = Call::send(shop, "ann", "key-1", &wish("cart-1", 1)).await;
        let watcher = client(&server).await;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        servers::postgres::wait_for(&watcher, waits, 1).await;

        let refused = post(shop, "ann", "key-2", &wish("cart-2", 1)).await;
        assert_eq!((refused.0, code(&refused)), (429, "turn-taken"));
        let in_flight = post(shop, "ann", "key-1", &wish("cart-1", 1)).await;
        assert_eq!((in_flight.0, code(&in_flight)), (409, "in-flight"));

        blocker.commit().await.unwrap();
        assert_eq!(waiting.answer().await.0, 201);
        assert_eq!(post(shop, "ann", "key-2", &wish("cart-2", 1)).await.0, 201);
    });
}
