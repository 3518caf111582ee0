FROM python:3.11-slim
WORKDIR /app
COPY requirements/run.txt requirements/run.txt
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/run.txt
COPY streams streams
COPY agents agents
COPY tables tables
RUN useradd --create-home tracker && install --directory --owner tracker --mode 0700 /data
USER tracker
ENV PYTHONUNBUFFERED=1 TRACKER_DATA_DIR=/data TRACKER_WEB_BIND=0.0.0.0
EXPOSE 6066
ENTRYPOINT ["python", "-m", "streams"]
CMD ["worker"]
