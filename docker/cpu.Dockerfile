# u2pl on a CPU: docker build -f docker/cpu.Dockerfile -t u2pl . && docker run --shm-size=2g -v "$PWD:/data" u2pl demo
FROM python:3.11-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir torch torchvision \
    && pip install --no-cache-dir .
WORKDIR /data
ENTRYPOINT ["u2pl"]
CMD ["--help"]
