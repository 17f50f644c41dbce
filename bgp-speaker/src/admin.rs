//! The admin API: questions to the engine's task and their answers as JSON.
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use isthmus_admin::ErrorBody;
use isthmus_admin::bgp::{AdvertisementView, PeerView, RouteView, RoutesQuery};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::event::{Ask, Event};

type Engine = mpsc::Sender<Event>;

/// The routes of the API that are the speaker's own.
pub(crate) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/peers", get(peers))
        .route("/v1/routes", get(routes))
        .route("/v1/advertisements", get(advertisements))
        .route("/v1/peers/reset", post(reset))
        .route("/v1/peers/refresh", post(refresh))
        .route("/v1/shutdown", post(shutdown))
        .with_state(engine)
}

/// An answer that is not a success.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { error: self.1 })).into_response()
    }
}

#[derive(Deserialize)]
struct OnePeer {
    peer: String,
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    text: String,
}

async fn peers(State(engine): State<Engine>) -> Result<Json<Vec<PeerView>>, Failure> {
    ask(&engine, Ask::Peers).await.map(Json)
}

async fn advertisements(State(engine): State<Engine>) -> Result<Json<Vec<AdvertisementView>>, Failure> {
    ask(&engine, Ask::Advertisements).await.map(Json)
}

async fn routes(
    State(engine): State<Engine>,
    Query(query): Query<RoutesQuery>,
) -> Result<Json<Vec<RouteView>>, Failure> {
    order(&engine, |answer| Ask::Routes(query, answer))
        .await
        .map(Json)
}

async fn reset(State(engine): State<Engine>, Query(one): Query<OnePeer>) -> Result<(), Failure> {
    order(&engine, |answer| Ask::Reset(one.peer, answer)).await
}

async fn refresh(State(engine): State<Engine>, Query(one): Query<OnePeer>) -> Result<(), Failure> {
    order(&engine, |answer| Ask::Refresh(one.peer, answer)).await
}

async fn shutdown(State(engine): State<Engine>, Query(text): Query<Text>) -> Result<(), Failure> {
    order(&engine, |answer| Ask::Shutdown(text.text, answer)).await
}

async fn ask<T>(engine: &Engine, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Failure> {
    let (answer, answered) = oneshot::channel();
    let gone = |()| {
        let text = "the speaker is starting (see /readyz) or ending".to_owned();
        Failure(StatusCode::SERVICE_UNAVAILABLE, text)
    };
    engine
        .send(Event::Ask(question(answer)))
        .await
        .map_err(|_| gone(()))?;
    answered.await.map_err(|_| gone(()))
}

async fn order<T>(
    engine: &Engine,
    question: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Ask,
) -> Result<T, Failure> {
    ask(engine, question)
        .await?
        .map_err(|text| Failure(StatusCode::BAD_REQUEST, text))
}
