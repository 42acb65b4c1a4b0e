//! The page and what lies around it.

use reqwest::StatusCode;

use crate::server::{Server, problem};

#[tokio::test]
async fn the_page_or_how_to_build_it_is_served_with_strict_headers() {
    let server = Server::start().await;
    let response = server.get("/").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(response.text().await.unwrap().contains("<title>"));
    problem(server.get("/assets/nothing-1234.js").send().await.unwrap(), 404, "no_such_route").await;
    if let Some(tag) = headers.get("etag") {
        let again = server.get("/").header("if-none-match", tag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(server.get("/jobs/some/address").send().await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_stock_client_is_there_or_says_how_to_get_it() {
    let server = Server::start().await;
    let response = server.get("/socket.io/socket.io.js").send().await.unwrap();
    if response.status() == StatusCode::OK {
        assert_eq!(response.headers()["content-type"], "text/javascript; charset=utf-8");
        assert!(response.text().await.unwrap().contains("Socket.IO"));
    } else {
        let problem = problem(response, 404, "page_not_built").await;
        assert!(problem["detail"].as_str().unwrap().contains("npm"), "{problem}");
    }
}
